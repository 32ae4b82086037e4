"""CrowdPose: all people of crowded images, 14 keypoints, no areas and no masks in its files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

from datasets.base import Transform
from datasets.checks import Frame, check_box, check_keypoints, check_person
from datasets.coco import CocoKeypoints
from datasets.evaluation import PeopleEvaluator
from datasets.skeleton import Skeleton
from datasets.values import is_number
from util.errors import UserError, shown

# Area of a person as a share of the box, as the authors' evaluation has it.
AREA_OF_BOX = 0.53

# Name -> largest crowdIndex of these images; each set begins where the one before ends.
CROWD_LEVELS = {"easy": 0.1, "medium": 0.8, "hard": math.inf}

_FILES = {"train": "crowdpose_trainval.json", "val": "crowdpose_test.json"}


def build(cfg: Any, split: str, transform: Transform, skeleton: Skeleton) -> CrowdPose:
    """The data set of the configuration; see `datasets.build_dataset`."""
    folder = Path(cfg.coco_path)
    return CrowdPose(
        folder / "images",
        folder / "json" / _FILES[split],
        transform,
        training=split == "train",
        seed=cfg.seed,
        skeleton=skeleton,
    )


class CrowdPose(CocoKeypoints):
    """Images with all their people, from a file of CrowdPose; see `CocoKeypoints`.

    OKS needs areas: they are 0.53 × box width × height. Every image has a `crowdIndex`, by which
    evaluation tells easy, medium and hard images apart.
    """

    form: ClassVar[str] = "CrowdPose"
    layout: ClassVar[str] = "json/crowdpose_{trainval,test}.json and images/"

    def check_image_entry(self, image_entry: dict[str, Any], source: str) -> None:
        """See `CocoKeypoints.check_image_entry`; evaluation needs a `crowdIndex`."""
        index = image_entry.get("crowdIndex")
        if not self.training and not (is_number(index) and index >= 0):
            raise UserError(
                f"{source}: image id {image_entry['id']} has no 'crowdIndex', a number from 0 on, "
                f"by which easy, medium and hard images are told apart, but {shown(index)}; use "
                f"the authors' file."
            )

    def read_annotation(self, annotation: dict[str, Any], frame: Frame) -> dict[str, Any]:
        """See `CocoKeypoints.read_annotation`."""
        check_person(annotation, frame, crowd_allowed=True)
        check_box(annotation, frame, flat_allowed=True)
        check_keypoints(annotation, frame, self.skeleton)
        kept = {key: annotation[key] for key in ("image_id", "bbox", "keypoints")}
        kept["iscrowd"] = annotation.get("iscrowd", 0)
        _, _, width, height = annotation["bbox"]
        return {**kept, "area": AREA_OF_BOX * width * height}

    def make_evaluator(self) -> PeopleEvaluator:
        """See `PeopleDataset.make_evaluator`."""
        truth = self.ground_truth()
        subsets: dict[str, list[int]] = {name: [] for name in CROWD_LEVELS}
        for image in truth["images"]:
            level = next(n for n, most in CROWD_LEVELS.items() if image["crowdIndex"] <= most)
            subsets[level].append(image["id"])
        return PeopleEvaluator(truth, self.skeleton, subsets=subsets)
