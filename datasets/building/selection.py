"""Who of a COCO file becomes a person of RefHuman: the rules below Table 1 of the paper."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.values import LARGEST_NUMBER, is_number
from util.errors import UserError, shown


@dataclass(frozen=True)
class Selection:
    """What a person needs to be taken.

    Attributes:
        surrounding: how many other people of the image are annotated, crowd regions not counted.
        keypoints: how many labelled keypoints (visibility 1 or 2, COCO's `num_keypoints`).
        area_share: area of the person, as a share of the image's.

    Raises:
        UserError: a number is negative, or the share above 1.
    """

    surrounding: int = 0
    keypoints: int = 0
    area_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("surrounding", "keypoints"):
            if not 0 <= getattr(self, name) <= LARGEST_NUMBER:
                raise UserError(f"--{name} has to be at least 0, got {shown(getattr(self, name))}.")
        if not is_number(self.area_share) or not 0 <= self.area_share <= 1:
            raise UserError(f"--area has to be within 0 and 1, got {shown(self.area_share)}.")

    def reason_against(self, others: int, labelled: int, area_share: float) -> str | None:
        """Why a person is not taken; None: is taken.

        Args:
            others: other people of the image.
            labelled: keypoints of the person.
            area_share: the person's area divided by the image's.
        """
        if others < self.surrounding:
            return f"fewer than {self.surrounding} other people in the image"
        if labelled < self.keypoints:
            return f"fewer than {self.keypoints} labelled keypoints"
        if area_share < self.area_share:
            return f"area below {100 * self.area_share:g} % of the image"
        return None


PAPER = {
    "train": Selection(surrounding=3, keypoints=8, area_share=0.02),
    "val": Selection(surrounding=0, keypoints=1, area_share=0.01),
}
"""Table 1; the training set has the people of RefCOCO, RefCOCO+ and RefCOCOg besides."""

# The paper says nothing of keypoints there, but nobody can learn a pose from none.
REFERRED = Selection(keypoints=1)
"""What those people need."""
