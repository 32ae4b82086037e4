"""What a model found in an image, as an evaluator needs it: on the CPU, without pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.evaluation.similarity import encode_masks, mask_pixels
from datasets.evaluation.truth import Truth
from util.errors import UserError

PERSON = 1  # label of results, and category of the COCO results format

# What is kept of every image: whether its results have keypoints, boxes, masks.
HAS = ("has_keypoints", "has_boxes", "has_masks")

_SENT = ("scores", "labels", "keypoints", "boxes", "mask_sums")

# What has to be finite: name in an error -> attribute of `Found`
_FINITE = {"scores": "scores", "keypoints": "keypoints", "boxes": "boxes", "masks": "mask_sums"}


@dataclass(frozen=True)
class Found:
    """The n people that were found in an image.

    Attributes:
        scores: [n] float32.
        keypoints: [n, K, 3] float32 (x, y, confidence), pixels of the original image; None where
            the model makes none.
        boxes: [n, 4] float32 xyxy; None where the model makes none.
        pixels: [n, 1 + G] int64, see `mask_pixels`; None where the model makes no masks.
        true_pixels: [G] int64, areas of the true masks; None likewise.
        codes: n run-length codes of the masks; None where nobody asked for them.
        mask_sums: [n] sums of the masks' logits; None where the model does not tell them.
        places: [n] int64 where they are in the model's results; None: all of these, in order.
    """

    scores: np.ndarray
    keypoints: np.ndarray | None = None
    boxes: np.ndarray | None = None
    pixels: np.ndarray | None = None
    true_pixels: np.ndarray | None = None
    codes: list[bytes] | None = None
    mask_sums: np.ndarray | None = None
    places: np.ndarray | None = None

    def corners(self) -> np.ndarray:
        """The boxes as COCO has them: [n, 4] float64 (x, y, width, height), of float32's values."""
        size = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.concatenate([self.boxes[:, :2], size], axis=1).astype(np.float64)

    def chosen(self, index: np.ndarray) -> Found:
        """Those of the results that `index` selects, in its order."""
        return Found(
            self.scores[index],
            None if self.keypoints is None else self.keypoints[index],
            None if self.boxes is None else self.boxes[index],
            None if self.pixels is None else self.pixels[index],
            self.true_pixels,
            None if self.codes is None else [self.codes[i] for i in index],
            None if self.mask_sums is None else self.mask_sums[index],
            index if self.places is None else self.places[index],
        )

    def of_result(self, result: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """These people of the model's `result` [n, ...] by name, of which they are some or all."""
        return {
            name: values if self.places is None else values[torch.from_numpy(self.places)]
            for name, values in result.items()
        }


def fetch(
    numbers: Sequence[int],
    results: Sequence[Mapping[str, Tensor]],
    truth: Truth,
    *,
    with_codes: bool,
) -> list[Found]:
    """Bring the results of a batch to the CPU, in one transfer beside the masks' codes.

    Args:
        numbers: which images of `truth`.
        results: see `Evaluator.update`. Every one is asked for its masks once, one after the other,
            so that they may be made while they are asked for.
        truth: the ground truth; masks are compared with it where they are.
        with_codes: make run-length codes of the masks.

    Raises:
        ValueError: a result of a shape that does not fit its image.
        UserError: results that are not finite.
    """
    sent: dict[str, dict[int, Tensor]] = {}  # name -> position in the batch -> values
    codes: dict[int, list[bytes]] = {}
    true_pixels: dict[int, np.ndarray] = {}
    for position, (number, result) in enumerate(zip(numbers, results, strict=True)):
        _check_shapes(number, result, truth)
        tensors = {name: result[name] for name in _SENT if name in result}
        if "masks" in result:
            masks = result["masks"].bool()
            people = truth.masks(numbers, masks.device)[position] if truth.has_masks else []
            tensors["pixels"] = mask_pixels(masks, people)
            true_pixels[position] = np.array([person.area for person in people], dtype=np.int64)
            if with_codes:
                codes[position] = encode_masks(masks)
        for name, values in tensors.items():
            sent.setdefault(name, {})[position] = values.detach()
    # float64 holds all of them exactly.
    parts = [torch.cat([v.flatten() for v in same.values()]).double() for same in sent.values()]
    arrived = torch.cat(parts).cpu().numpy()

    values = [{} for _ in numbers]
    start = 0
    for name, same in sent.items():
        for position, tensor in same.items():
            end = start + tensor.numel()
            values[position][name] = arrived[start:end].reshape(tensor.shape)
            start = end
    found = [_people(values[i], true_pixels.get(i), codes.get(i)) for i in range(len(numbers))]
    _require_finite(numbers, found, truth)
    return found


def _people(
    values: Mapping[str, np.ndarray],
    true_pixels: np.ndarray | None,
    codes: list[bytes] | None,
) -> Found:
    """The results that are people, as `Found` has them."""
    keypoints, boxes, pixels = (values.get(name) for name in ("keypoints", "boxes", "pixels"))
    found = Found(
        values["scores"].astype(np.float32),
        None if keypoints is None else keypoints.astype(np.float32),
        None if boxes is None else boxes.astype(np.float32),
        None if pixels is None else pixels.astype(np.int64),
        true_pixels,
        codes,
        values.get("mask_sums"),
    )
    if "labels" in values:
        found = found.chosen(np.flatnonzero(values["labels"] == PERSON))
    return found


def _check_shapes(number: int, result: Mapping[str, Tensor], truth: Truth) -> None:
    count = len(result["scores"])
    expected = {
        "labels": (count,),
        "boxes": (count, 4),
        "mask_sums": (count,),
        "keypoints": (count, truth.keypoints.shape[1], 3),
        "masks": (count, *truth.sizes[number].tolist()),
    }
    for key, shape in expected.items():
        if key in result and tuple(result[key].shape) != shape:
            raise ValueError(
                f"Image id {truth.ids[number]}: result {key!r} has shape "
                f"{tuple(result[key].shape)}, expected {shape}."
            )


def _require_finite(numbers: Sequence[int], found: Sequence[Found], truth: Truth) -> None:
    broken: dict[str, list[int]] = {}
    for number, people in zip(numbers, found, strict=True):
        for name, attribute in _FINITE.items():
            values = getattr(people, attribute)
            if values is not None and not np.isfinite(values).all():
                broken.setdefault(name, []).append(int(truth.ids[number]))
    if broken:
        what = "; ".join(f"{name} of image ids {str(ids)[1:-1]}" for name, ids in broken.items())
        raise UserError(
            f"The model's results are not finite numbers: {what}. Evaluate in full precision "
            f"(amp=False), or an earlier checkpoint if the weights themselves are spoilt."
        )
