"""COCO keypoints: all people of an image, no prompts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datasets.annotation_text import collection_paused
from datasets.annotations import (
    PackedList,
    join_annotations,
    read_annotation_file,
    require_images,
)
from datasets.base import PeopleDataset, Transform, image_of_entry, make_sample
from datasets.checks import (
    Frame,
    check_annotation_ids,
    check_area,
    check_box,
    check_keypoints,
    check_person,
    check_segmentation,
)
from datasets.evaluation import PeopleEvaluator
from datasets.sample import Sample
from datasets.skeleton import COCO, Skeleton
from util.errors import UserError


def build(cfg: Any, split: str, transform: Transform, skeleton: Skeleton) -> CocoKeypoints:
    """The data set of the configuration; see `datasets.build_dataset`."""
    return CocoKeypoints(
        *coco_places(Path(cfg.coco_path), split),
        transform,
        training=split == "train",
        with_masks=cfg.mask_head,
        seed=cfg.seed,
        skeleton=skeleton,
    )


def coco_places(folder: Path, split: str) -> tuple[Path, Path]:
    """The folder of images and the annotation file of a split ("train", "val") in COCO's folder."""
    images = folder / "images" / f"{split}2017"
    if not images.is_dir() and (folder / f"{split}2017").is_dir():
        images = folder / f"{split}2017"
    return images, folder / "annotations" / f"person_keypoints_{split}2017.json"


class CocoKeypoints(PeopleDataset):
    """Images with all their people, from a file of COCO's person keypoints.

    The targets are the people with a labelled keypoint. Crowd regions, and boxes without an extent
    inside the image, are left out. Training has the images with at least one such person,
    evaluation all images of the file.

    Args:
        images_folder: folder of the images.
        annotation_file: `person_keypoints_train2017.json` or a file of that form.
        transform, training, seed, skeleton: see `PeopleDataset`.
        with_masks: load the people's masks too, for models that make masks.

    Raises:
        MissingFileError: folder, annotation file or images are missing.
        UserError: the annotation file is not in the form of COCO's keypoints, or nobody is in it.
    """

    form: ClassVar[str] = "COCO keypoints"
    layout: ClassVar[str] = (
        "annotations/person_keypoints_{train,val}2017.json and images/{train,val}2017/, or "
        "{train,val}2017/ without images/"
    )

    @collection_paused()
    def __init__(
        self,
        images_folder: str | os.PathLike[str],
        annotation_file: str | os.PathLike[str],
        transform: Transform,
        *,
        training: bool,
        with_masks: bool = False,
        seed: int = 0,
        skeleton: Skeleton = COCO,
    ) -> None:
        super().__init__(transform, training=training, seed=seed, skeleton=skeleton)
        self.images_folder = Path(images_folder)
        self.with_masks = with_masks
        content = read_annotation_file(Path(annotation_file), self.layout)
        source = str(annotation_file)
        joined = join_annotations(content, source, self.form)
        check_annotation_ids((a for _, of_image in joined for a in of_image), source)
        entries = []
        for image_entry, of_image in joined:
            self.check_image_entry(image_entry, source)
            of_image = [
                self.read_annotation(a, Frame.of_annotation(source, image_entry, a))
                for a in of_image
            ]
            if training:
                of_image = [a for a in of_image if is_target(a, image_entry)]
            if of_image or not training:
                entries.append((image_entry, of_image))
        if not entries:
            raise UserError(
                f"{annotation_file} has nobody with a labelled keypoint to train on; give another "
                f"file."
            )
        names = {image_entry["file_name"] for image_entry, _ in entries}
        require_images(self.images_folder, names, self.layout)
        self._entries = PackedList(entries)

    def check_image_entry(self, image_entry: dict[str, Any], source: str) -> None:
        """Check what only this form of file has in its image entries: nothing.

        Args:
            image_entry: of the file.
            source: its name, for errors.

        Raises:
            UserError: something is missing or broken.
        """

    def read_annotation(self, annotation: dict[str, Any], frame: Frame) -> dict[str, Any]:
        """What of an annotation of the file is needed, checked.

        Args:
            annotation: of the file.
            frame: its image.

        Returns:
            image_id, bbox, area, keypoints, iscrowd, and segmentation where masks are loaded.

        Raises:
            UserError: something is missing or broken.
        """
        check_person(annotation, frame, crowd_allowed=True)
        check_box(annotation, frame, flat_allowed=True)
        check_area(annotation, frame, zero_allowed=True)
        check_keypoints(annotation, frame, self.skeleton)
        kept = {key: annotation[key] for key in ("image_id", "bbox", "area", "keypoints")}
        kept["iscrowd"] = annotation.get("iscrowd", 0)
        if self.with_masks:
            check_segmentation(annotation, frame, empty_allowed=True)
            kept["segmentation"] = annotation["segmentation"]
        return kept

    def __len__(self) -> int:
        return len(self._entries)

    def raw_sample(self, index: int, generator: np.random.Generator) -> Sample:
        """See `PeopleDataset.raw_sample`."""
        image_entry, annotations = self._entries[index]
        image = image_of_entry(self.images_folder, image_entry)
        people = [a for a in annotations if is_target(a, image_entry)]
        return make_sample(
            image, image_entry, people, skeleton=self.skeleton, with_masks=self.with_masks
        )

    def image_groups(self) -> list[list[list[int]]]:
        """See `PeopleDataset.image_groups`."""
        return [[[index]] for index in range(len(self))]

    def ground_truth(self) -> dict[str, Any]:
        """See `PeopleDataset.ground_truth`; in evaluation, with crowds and people left out."""
        entries = [self._entries[i] for i in range(len(self))]
        return {
            "images": [image_entry for image_entry, _ in entries],
            "annotations": [a for _, annotations in entries for a in annotations],
            "categories": [{"id": 1, "name": "person"}],
        }

    def make_evaluator(self) -> PeopleEvaluator:
        """See `PeopleDataset.make_evaluator`."""
        return PeopleEvaluator(self.ground_truth(), self.skeleton)


def is_target(annotation: dict[str, Any], image_entry: dict[str, Any]) -> bool:
    """Whether an annotation is of a person to be learnt: labelled, no crowd, inside the image."""
    x, y, width, height = annotation["bbox"]
    return (
        not annotation["iscrowd"]
        and any(visibility > 0 for visibility in annotation["keypoints"][2::3])
        and annotation["area"] > 0
        and min(x + width, image_entry["width"]) > max(x, 0)
        and min(y + height, image_entry["height"]) > max(y, 0)
    )
