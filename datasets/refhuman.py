"""RefHuman: annotation file -> samples of one image, one person and their prompts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
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
    same_person,
)
from datasets.base import PeopleDataset, Transform, image_of_entry, make_sample
from datasets.checks import (
    Frame,
    check_annotation_ids,
    check_area,
    check_box,
    check_keypoints,
    check_people,
    check_person,
    check_scribbles,
    check_segmentation,
    check_text,
)
from datasets.evaluation import ReferringEvaluator
from datasets.geometry import PendingImage
from datasets.prompts import PROMPT_KINDS, asked_kinds, get_kind
from datasets.sample import Sample
from datasets.scribble import NUM_POINTS
from datasets.skeleton import COCO, Skeleton
from util.errors import UserError

_IDS = ("id", "image_id")  # of an annotation
_LAYOUT = "images/, RefHuman_train.json and RefHuman_val.json"


def build(cfg: Any, split: str, transform: Transform, skeleton: Skeleton) -> RefHuman:
    """The data set of the configuration; see `datasets.build_dataset`."""
    training = split == "train"
    folder = Path(cfg.coco_path)
    return RefHuman(
        folder / "images",
        folder / f"RefHuman_{split}.json",
        transform,
        training=training,
        prompts=asked_kinds(cfg, training=training),
        seed=cfg.seed,
        skeleton=skeleton,
    )


def make_prompted_sample(
    image: np.ndarray | PendingImage,
    image_entry: dict[str, Any],
    annotation: dict[str, Any],
    *,
    training: bool,
    generator: np.random.Generator | None = None,
    skeleton: Skeleton = COCO,
) -> Sample:
    """Turn one image-prompt pair in RefHuman's form into a raw sample.

    Args:
        image: [h, w, 3] uint8 RGB, or an image that is yet to be read.
        image_entry: `id`, `height`, `width`, and `caption` where there is one.
        annotation: the entry's person, see `datasets.base.make_sample`, and `scribble` where there
            is one.
        training: True draws one of the person's scribbles, False takes the first.
        generator: source of that draw; needed only when training.
        skeleton: keypoint definition, K keypoints.

    Raises:
        UserError: image and entry differ in size, or the polygons cannot be drawn.
    """
    sample = make_sample(image, image_entry, [annotation], skeleton=skeleton)
    target = dict(sample.target)
    if annotation.get("scribble"):
        scribbles = np.asarray(annotation["scribble"], dtype=np.float32)
        scribbles = scribbles.reshape(-1, NUM_POINTS, 2)
        choice = 0
        if training:
            if generator is None:
                raise ValueError("make_prompted_sample needs a generator when training.")
            choice = int(generator.integers(len(scribbles)))
        target["scribble"] = torch.from_numpy(scribbles[choice].copy())
    if image_entry.get("caption"):
        target["caption"] = image_entry["caption"]
    return Sample(sample.image, target)


class PromptedPersonDataset(PeopleDataset):
    """Common part of the data sets of pairs: one image, one person in it, what prompts are made of.

    Subclasses provide `__len__`, `load_pair`, `image_groups` and `ground_truth`. In training one of
    a person's scribbles is drawn, in evaluation it is the first.

    Args:
        transform, training, seed, skeleton: see `PeopleDataset`.
    """

    has_prompts: ClassVar[bool] = True

    def load_pair(
        self, index: int
    ) -> tuple[np.ndarray | PendingImage, dict[str, Any], dict[str, Any]]:
        """Image, as `make_prompted_sample` takes it, image entry and annotation of pair `index`."""
        raise NotImplementedError

    def raw_sample(self, index: int, generator: np.random.Generator) -> Sample:
        """See `PeopleDataset.raw_sample`."""
        return make_prompted_sample(
            *self.load_pair(index),
            training=self.training,
            generator=generator,
            skeleton=self.skeleton,
        )

    def make_evaluator(self) -> ReferringEvaluator:
        """See `PeopleDataset.make_evaluator`."""
        return ReferringEvaluator(self.ground_truth(), self.skeleton)


class RefHuman(PromptedPersonDataset):
    """RefHuman from its annotation file and image folder.

    Args:
        images_folder: folder of the images.
        annotation_file: `RefHuman_train.json`, `RefHuman_val.json` or a file of that form.
        transform, training, seed, skeleton: see `PeopleDataset`.
        prompts: kinds of prompt, by name, that every pair has to support; None: all there are.

    Raises:
        MissingFileError: folder, annotation file or images are missing.
        UserError: the annotation file is not in RefHuman's form, or lacks what a prompt needs.
    """

    @collection_paused()
    def __init__(
        self,
        images_folder: str | os.PathLike[str],
        annotation_file: str | os.PathLike[str],
        transform: Transform,
        *,
        training: bool,
        prompts: Iterable[str] | None = None,
        seed: int = 0,
        skeleton: Skeleton = COCO,
    ) -> None:
        super().__init__(transform, training=training, seed=seed, skeleton=skeleton)
        self.images_folder = Path(images_folder)
        self.annotation_file = Path(annotation_file)
        content = read_annotation_file(self.annotation_file, _LAYOUT)
        kinds = tuple(PROMPT_KINDS if prompts is None else prompts)
        pairs = pair_entries(content, str(annotation_file), kinds, skeleton)
        require_images(self.images_folder, {image["file_name"] for image, _ in pairs}, _LAYOUT)
        people, references = _refer_to_people(pairs)
        self._people, self._pairs = PackedList(people), PackedList(references)
        self._groups = _group_by_image_and_person(pairs)
        self._common = {
            key: content[key] for key in ("categories", "people") if content.get(key) is not None
        }
        if "people" in self._common:
            sizes = {image["file_name"]: (image["height"], image["width"]) for image, _ in pairs}
            people = check_people(content["people"], sizes, str(annotation_file), skeleton)
            self._common["people"] = people

    def __len__(self) -> int:
        return len(self._pairs)

    def load_pair(self, index: int) -> tuple[PendingImage, dict[str, Any], dict[str, Any]]:
        """Pair `index`; see `PromptedPersonDataset.load_pair`."""
        image_entry, annotation = self._entries(index)
        image = image_of_entry(self.images_folder, image_entry)
        return image, image_entry, annotation

    def _entries(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Image entry and annotation of pair `index`."""
        image_entry, number, ids = self._pairs[index]
        return image_entry, self._people[number] | ids

    def image_groups(self) -> list[list[Sequence[int]]]:
        """See `PeopleDataset.image_groups`; the people are told apart by their annotations."""
        return self._groups

    def ground_truth(self) -> dict[str, Any]:
        """The annotation file's content in the form of `PeopleDataset.ground_truth`."""
        pairs = [self._entries(i) for i in range(len(self))]
        return {
            "images": [image_entry for image_entry, _ in pairs],
            "annotations": [annotation for _, annotation in pairs],
            **self._common,
        }


def pair_entries(
    content: Any, source: str, prompts: Sequence[str] = (), skeleton: Skeleton = COCO
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Check an annotation file's content and join image entries with their annotations.

    Args:
        content: the parsed JSON.
        source: its name, for errors.
        prompts: kinds of prompt, by name, that every pair has to support.
        skeleton: keypoint definition.

    Returns:
        (image entry, annotation) of every image entry, in their order.

    Raises:
        UserError: an unknown kind of prompt, or a broken entry: with the source, the image id, the
            key and the remedy.
    """
    pairs = []
    checked: dict[int, tuple[tuple[int, int], dict[str, Any]]] = {}
    for image_entry, of_image in join_annotations(content, source, "RefHuman"):
        where = f"{source}: image id {image_entry['id']}"
        check_single(len(of_image), where)
        annotation = of_image[0]
        frame = Frame.of_annotation(source, image_entry, annotation)
        size = (frame.height, frame.width)
        # Of a person with several captions, the first one's annotation is checked.
        checked_size, first = checked.get(_shared(annotation), (None, {}))
        if size != checked_size or not share_all(annotation, first):
            check_person(annotation, frame, crowd_allowed=False)
            check_box(annotation, frame)
            check_area(annotation, frame)
            check_keypoints(annotation, frame, skeleton)
            check_segmentation(annotation, frame)
            check_scribbles(annotation, frame)
            checked[_shared(annotation)] = size, annotation
        check_text(image_entry, "caption", where)
        check_prompts(image_entry, annotation, where, prompts)
        pairs.append((image_entry, annotation))
    check_annotation_ids((annotation for _, annotation in pairs), source)
    return pairs


def _shared(annotation: dict[str, Any]) -> int:
    """What annotations have in common that hold the same objects: the identity of one of them."""
    return id(annotation.get("keypoints"))


def share_all(annotation: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two annotations hold the same objects, apart from their ids."""
    if annotation.keys() != other.keys():
        return False
    for key, value in annotation.items():  # a generator takes twice as long
        if value is not other[key] and key not in _IDS:
            return False
    return True


def check_single(num_annotations: int, where: str) -> None:
    """An image entry, called `where` in errors, has to have one annotation.

    Raises:
        UserError: it has none or several.
    """
    if num_annotations != 1:
        raise UserError(
            f"{where} has {num_annotations} annotations; RefHuman has exactly one person per "
            f"image entry. Is this a plain COCO file (dataset=coco)?"
        )


def check_prompts(
    image_entry: dict[str, Any], annotation: dict[str, Any], where: str, prompts: Sequence[str]
) -> None:
    """A pair, called `where` in errors, has to have what the kinds of prompt are made of.

    Raises:
        UserError: something is missing.
    """
    for name in prompts:
        lacking = get_kind(name).lacking(image_entry, annotation)
        if lacking is not None:
            raise UserError(describe_lacking(where, lacking, name))


def describe_lacking(where: str, lacking: str, name: str) -> str:
    """What a pair, called `where`, lacks for prompts of the kind `name`."""
    return (
        f"{where} has no '{lacking}', which {name} prompts need; add one or leave out the {name} "
        f"prompts."
    )


def _refer_to_people(
    pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]],
) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], int, dict[str, Any]]]]:
    """Annotations that are not an earlier one with other ids; and how the pairs refer to them.

    Returns:
        The annotations; of each pair the image entry, the number of its annotation, and its ids.
    """
    people: list[dict[str, Any]] = []
    numbers: dict[int, int] = {}
    references = []
    for image_entry, annotation in pairs:
        number = numbers.get(_shared(annotation))
        if number is None or not share_all(annotation, people[number]):
            number = numbers[_shared(annotation)] = len(people)
            people.append(annotation)
        ids = {key: annotation[key] for key in _IDS if key in annotation}
        references.append((image_entry, number, ids))
    return people, references


def _group_by_image_and_person(
    pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]],
) -> list[list[list[int]]]:
    """For every image file, for every person in it, the indices of the pairs."""
    groups: dict[str, list[list[int]]] = {}
    for index, (image_entry, annotation) in enumerate(pairs):
        people = groups.setdefault(image_entry["file_name"], [])
        for of_person in people:
            if same_person(annotation, pairs[of_person[0]][1]):
                of_person.append(index)
                break
        else:
            people.append([index])
    return list(groups.values())
