"""COCO keypoints with a prompt for everybody: a scribble drawn inside the person's mask."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

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
from datasets.coco import CocoKeypoints, coco_places, is_target
from datasets.evaluation import PromptedPeopleEvaluator
from datasets.prompts import asked_kinds, get_kind
from datasets.sample import Sample
from datasets.scribble import draw_scribble
from datasets.skeleton import COCO, Skeleton
from datasets.values import is_integer
from util.errors import UserError, shown
from util.logging import LOGGER_NAME

logger = logging.getLogger(LOGGER_NAME)

# Keeps the scribbles' random streams apart from others of (seed, number).
_STREAM = 0x5C81

_IMAGE_KEYS = ("id", "file_name", "height", "width")


def build(cfg: Any, split: str, transform: Transform, skeleton: Skeleton) -> CocoPrompted:
    """The data set of the configuration; see `datasets.build_dataset`."""
    training = split == "train"
    return CocoPrompted(
        *coco_places(Path(cfg.coco_path), split),
        transform,
        training=training,
        prompts=asked_kinds(cfg, training=training),
        seed=cfg.seed,
        skeleton=skeleton,
    )


class CocoPrompted(PeopleDataset):
    """The people of a file of COCO's person keypoints one at a time, each with a scribble.

    A sample is a person with a labelled keypoint and a mask, who is no crowd region: those whom
    COCO's keypoint evaluation counts. Its `image_id` is the id of the person's annotation. The
    scribble is drawn when the sample is made: in evaluation it follows from (seed, annotation id),
    in training from (seed, epoch, index), so that it is another one in every epoch.

    Evaluation puts the results of all people of an image together; see `PromptedPeopleEvaluator`.

    Args:
        images_folder: folder of the images.
        annotation_file: `person_keypoints_train2017.json` or a file of that form.
        transform, training, seed, skeleton: see `PeopleDataset`.
        prompts: kinds of prompt, by name, that every sample has to support.

    Raises:
        MissingFileError: folder, annotation file or images are missing.
        UserError: the annotation file is not in the form of COCO's keypoints, nobody in it can be
            prompted for, or a kind of prompt needs what it does not have (text: a caption).
    """

    has_prompts: ClassVar[bool] = True

    @collection_paused()
    def __init__(
        self,
        images_folder: str | os.PathLike[str],
        annotation_file: str | os.PathLike[str],
        transform: Transform,
        *,
        training: bool,
        prompts: Sequence[str],
        seed: int = 0,
        skeleton: Skeleton = COCO,
    ) -> None:
        super().__init__(transform, training=training, seed=seed, skeleton=skeleton)
        self.images_folder = Path(images_folder)
        source = str(annotation_file)
        content = read_annotation_file(Path(annotation_file), CocoKeypoints.layout)
        joined = join_annotations(content, source, CocoKeypoints.form)
        check_annotation_ids((a for _, of_image in joined for a in of_image), source)
        entries: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        places: list[tuple[int, int]] = []
        ids: list[int] = []
        left_out: Counter[str] = Counter()
        for image_entry, of_image in joined:
            image_entry = {key: image_entry[key] for key in _IMAGE_KEYS}
            people = []
            for annotation in of_image:
                frame = Frame.of_annotation(source, image_entry, annotation)
                person = read_person(annotation, frame, skeleton)
                reason = reason_without_prompt(person, image_entry)
                if reason is None:
                    _check_prompts(image_entry, person, frame, prompts)
                    places.append((len(entries), len(people)))
                    ids.append(person["id"])
                else:
                    left_out[reason] += 1
                if reason is None or not training:
                    people.append(person)
            if people or not training:
                entries.append((image_entry, people))
        if not places:
            raise UserError(
                f"{source} has nobody with a labelled keypoint and a mask to prompt for; give "
                f"another file."
            )
        names = {image_entry["file_name"] for image_entry, _ in entries}
        require_images(self.images_folder, names, CocoKeypoints.layout)
        self._entries = PackedList(entries)
        # [N, 2] of every sample the number of its entry, and of the person there
        self._places = np.array(places, dtype=np.int32)
        self._ids = np.array(ids, dtype=np.int64)
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        logger.info("%s: %d people to prompt for; left out: %s", source, len(ids), why or "nobody")

    def __len__(self) -> int:
        return len(self._places)

    def raw_sample(self, index: int, generator: np.random.Generator) -> Sample:
        """See `PeopleDataset.raw_sample`."""
        entry, number = self._places[index].tolist()
        image_entry, people = self._entries[entry]
        person = people[number]
        image = image_of_entry(self.images_folder, image_entry)
        sample = make_sample(image, image_entry, [person], skeleton=self.skeleton)
        if not self.training:
            generator = np.random.default_rng((self.seed, person["id"] % 2**64, _STREAM))
        top, left, mask = sample.target["masks"].windows[0]
        scribble = draw_scribble(mask, generator) + np.array((left, top), dtype=np.float32)
        prompted = {"image_id": person["id"], "scribble": torch.from_numpy(scribble)}
        return Sample(sample.image, {**sample.target, **prompted})

    def image_groups(self) -> list[list[Sequence[int]]]:
        """See `PeopleDataset.image_groups`."""
        firsts = np.flatnonzero(np.diff(self._places[:, 0], prepend=-1)).tolist()
        ends = [*firsts[1:], len(self)]
        return [[[i] for i in range(first, end)] for first, end in zip(firsts, ends, strict=True)]

    def ground_truth(self) -> dict[str, Any]:
        """See `PeopleDataset.ground_truth`; in evaluation, with crowds and people left out."""
        entries = [self._entries[i] for i in range(len(self._entries))]
        return {
            "images": [image_entry for image_entry, _ in entries],
            "annotations": [person for _, people in entries for person in people],
            "categories": [{"id": 1, "name": "person"}],
        }

    def make_evaluator(self) -> PromptedPeopleEvaluator:
        """See `PeopleDataset.make_evaluator`."""
        return PromptedPeopleEvaluator(self.ground_truth(), self._ids.tolist(), self.skeleton)


def read_person(annotation: dict[str, Any], frame: Frame, skeleton: Skeleton) -> dict[str, Any]:
    """What of an annotation of the file is needed, checked.

    Args:
        annotation: of the file.
        frame: its image.
        skeleton: keypoint definition.

    Returns:
        id, image_id, bbox, area, keypoints, iscrowd, segmentation (an empty mask where there is
        none) and has_mask, whether the segmentation has a pixel.

    Raises:
        UserError: something is missing or broken.
    """
    if not is_integer(annotation.get("id")):
        expected = "has to be an integer, from which the person's prompt is drawn"
        raise frame.error("id", expected, shown(annotation.get("id")))
    check_person(annotation, frame, crowd_allowed=True)
    check_box(annotation, frame, flat_allowed=True)
    check_area(annotation, frame, zero_allowed=True)
    check_keypoints(annotation, frame, skeleton)
    person = {key: annotation[key] for key in ("id", "image_id", "bbox", "area", "keypoints")}
    person["iscrowd"] = annotation.get("iscrowd", 0)
    person["segmentation"] = annotation.get("segmentation")
    person["has_mask"] = False
    if person["segmentation"] in (None, []):
        size = [frame.height, frame.width]
        person["segmentation"] = {"size": size, "counts": [frame.height * frame.width]}
    else:
        person["has_mask"] = check_segmentation(annotation, frame, empty_allowed=True)
    return person


def reason_without_prompt(person: dict[str, Any], image_entry: dict[str, Any]) -> str | None:
    """Why nobody is prompted for by an annotation of `read_person`; None: somebody is."""
    if person["iscrowd"]:
        return "crowd regions"
    if not any(visibility > 0 for visibility in person["keypoints"][2::3]):
        return "without a labelled keypoint"
    if not person["has_mask"]:
        return "without a mask"
    return None if is_target(person, image_entry) else "without an extent in the image"


def _check_prompts(
    image_entry: dict[str, Any], person: dict[str, Any], frame: Frame, prompts: Sequence[str]
) -> None:
    drawn = {**person, "scribble": True}
    for name in prompts:
        lacking = get_kind(name).lacking(image_entry, drawn)
        if lacking is not None:
            raise UserError(
                f"{frame.name} has no '{lacking}', which {name} prompts need; on COCO train with "
                f"--train_trigger point,scribble and evaluate with --eval_trigger point,scribble."
            )
