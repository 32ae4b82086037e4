"""Which results of a multi-person model count for the one person who is referred to (Table 5).

A model without prompts finds everybody in an image; RefHuman asks for one person. The rules choose
with the ground truth's box whom to compare with that person:

- `none`: all results of the image;
- `l1`: the one result whose box is nearest to the true box;
- `iou@T`: those whose box and the true box have an intersection over union of at least T;
- `intersection@T`: those that cover at least the share T of the true box: intersection over the
  area of the true box (Table 2 has T = 0.3).

The results that are chosen keep their scores and are judged as any model's: a rule that leaves
nobody leaves a person who is not found, one that leaves several leaves some that are wrong.

What the paper does not say, and how it is here: the box of a result encloses all of its keypoints,
as pycocotools gives poses a box (a multi-person model tells neither boxes nor which keypoints are
visible); the true box is the annotation's. Both are in pixels of the original image, and the L1
distance is the sum of those of the left, top, right and bottom edges.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from util.errors import UserError, shown

# Rule -> whether it has a threshold.
RULES = {"none": False, "l1": False, "iou": True, "intersection": True}


@dataclass(frozen=True)
class Selection:
    """One of the rules at the top of this file.

    Attributes:
        rule: its name in `RULES`.
        threshold: in (0, 1]; None for a rule without.
    """

    rule: str
    threshold: float | None = None

    @classmethod
    def parse(cls, text: str | None) -> Selection:
        """The rule that a setting names, such as `l1` or `iou@0.3`.

        Args:
            text: None is `none`: a command line makes it of the word.

        Raises:
            UserError: no such rule, or a threshold that is missing, does nothing or is none.
        """
        text = "none" if text is None else text
        rule, at, number = text.partition("@")
        if rule not in RULES:
            close = difflib.get_close_matches(rule.lower(), RULES, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise UserError(
                f"Unknown rule {shown(text)} in select_results; expected none, l1, iou@T or "
                f"intersection@T with a threshold T, such as intersection@0.3.{hint}"
            )
        if not RULES[rule]:
            if at:
                raise UserError(
                    f"select_results: '{rule}' has no threshold; got {shown(text)}. Write '{rule}'."
                )
            return cls(rule)
        threshold = _threshold(number)
        if threshold is None:
            raise UserError(
                f"select_results: '{rule}' needs a threshold above 0 and at most 1, such as "
                f"{rule}@0.3; got {shown(text)}."
            )
        return cls(rule, threshold)

    @property
    def name(self) -> str:
        """What `parse` makes this rule of."""
        return self.rule if self.threshold is None else f"{self.rule}@{self.threshold}"

    def choose(self, keypoints: np.ndarray, scores: np.ndarray, true_box: np.ndarray) -> np.ndarray:
        """The results that count.

        Args:
            keypoints: [n, K, 2 or more] (x, y, ...) of n >= 0 results, pixels.
            scores: [n].
            true_box: [4] (x, y, width, height), pixels of the same image.

        Returns:
            [m] int64, which of the n, in their order. Of several that are equally near `l1` takes
            the one of the highest score, of equal scores the first.
        """
        everybody = np.arange(len(scores))
        if self.rule == "none":
            return everybody
        boxes = keypoint_boxes(keypoints)
        true = np.concatenate([true_box[:2], true_box[:2] + true_box[2:]]).astype(np.float64)
        if self.rule == "l1":
            distances = np.abs(boxes - true).sum(axis=1)
            return np.lexsort((-scores, distances))[:1]
        sides = np.minimum(boxes[:, 2:], true[2:]) - np.maximum(boxes[:, :2], true[:2])
        intersection = sides.clip(min=0).prod(axis=1)
        area = np.full(len(boxes), (true[2:] - true[:2]).prod())
        if self.rule == "iou":
            area += (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - intersection
        # Without an area there is no intersection either.  The quotient of whole numbers is the
        # number nearest to it, as the threshold is: 3 of 10 pixels are 0.3.
        share = np.divide(intersection, area, out=np.zeros(len(boxes)), where=area > 0)
        return everybody[share >= self.threshold]


def parse_selections(texts: Sequence[str | None]) -> tuple[Selection, ...]:
    """The rules that setting `select_results` names.

    Raises:
        UserError: see `Selection.parse`; or one is named twice.
    """
    selections = tuple(Selection.parse(text) for text in texts)
    for number, selection in enumerate(selections):
        if selection in selections[:number]:
            raise UserError(f"select_results names '{selection.name}' twice; leave one out.")
    return selections


def keypoint_boxes(keypoints: np.ndarray) -> np.ndarray:
    """The boxes around all keypoints [n, K, 2 or more]: [n, 4] float64 xyxy."""
    points = keypoints[..., :2].astype(np.float64)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def _threshold(text: str) -> float | None:
    """A number above 0 and at most 1; None: the text is no such number."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number <= 1 else None  # nor NaN
