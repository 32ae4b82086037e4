"""Defects of an annotation file's entries: loading's own checks, one by one, and those across."""

from __future__ import annotations

import hashlib
import pickle
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from checking.defects import Findings, Place, plain_id
from checking.reading import COCO_KEYPOINTS, REFHUMAN, AnnotationFile, ImageEntry, PersonKey
from datasets.annotations import (
    check_image_entry,
    check_image_id,
    check_image_reference,
    check_image_size,
)
from datasets.checks import (
    Frame,
    check_annotation_id,
    check_area,
    check_box,
    check_keypoints,
    check_listed_person,
    check_people,
    check_person,
    check_scribbles,
    check_segmentation,
    check_text,
)
from datasets.prompts import PROMPT_KINDS, get_kind
from datasets.refhuman import check_single, describe_lacking, share_all
from datasets.skeleton import Skeleton
from util.errors import UserError

PARTS = ("person", "bbox", "area", "keypoints", "segmentation", "scribble")
"""What is checked of an annotation, by the name of its kind of defect."""

_IDS = ("id", "image_id")


@dataclass(slots=True)
class Person:
    """What is kept of an annotation.

    Attributes:
        number: in the file's `annotations`.
        id: of the annotation, as a report shows it.
        key: tells whether another one is of the same person; None: box or keypoints are broken.
        is_labelled: it has a labelled keypoint.
        lacking: for every kind of prompt what it misses, None: nothing.
    """

    number: int
    id: int | str | None
    key: PersonKey | None
    is_labelled: bool
    lacking: tuple[str | None, ...]

    @property
    def place(self) -> Place:
        """Where the annotation is."""
        return ("annotations", self.number)


@dataclass(frozen=True)
class Shape:
    """An annotation whose parts can be compared with each other.

    Attributes:
        image: its image entry.
        number: in the file's `annotations`.
        annotation: the entry itself.
        sound: names of its `PARTS` without a defect.
        digest: of all of it but the ids, and of the image's size; those of equal ones are equal.
    """

    image: Mapping[str, Any]
    number: int
    annotation: Mapping[str, Any]
    sound: frozenset[str]
    digest: bytes


@dataclass
class ContentCheck:
    """The check of a file's entries, without masks drawn and images opened.

    Args:
        file: to be read.
        skeleton: keypoint definition.

    Attributes:
        findings: the defects, after `shapes` has ended; so are the others.
        images: the image entries that are sound, by id.
        by_file: the same by the name of the image file.
        prompts: kinds of prompt that somebody in the file has what is needed for.
        counts: how many entries the file's lists have; -1: `people` is there, but is no list.
        image_ids: of every entry of `images` its id, of every one of `annotations` its `image_id`;
            None: it is none.
    """

    file: AnnotationFile
    skeleton: Skeleton
    findings: Findings = field(default_factory=Findings)
    images: dict[int, ImageEntry] = field(default_factory=dict)
    by_file: dict[str, list[ImageEntry]] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    image_ids: dict[str, list[int | str | None]] = field(
        default_factory=lambda: {"images": [], "annotations": []}
    )

    def __post_init__(self) -> None:
        self.source = str(self.file.path)
        self._sizes: dict[str, tuple[int, int]] = {}
        self._seen: dict[Any, int] = {}  # annotation id -> image id
        self._sound: set[bytes] = set()  # digests of annotations without a defect
        self._without_text: set[int] = set()  # ids of images whose caption is no text
        self._lacking: dict[tuple[str | None, ...], tuple[str | None, ...]] = {}
        self._last: tuple[Mapping[str, Any], tuple[int, int], bytes] | None = None
        self._listed: dict[str, list[PersonKey]] | None = None

    def read_images(self) -> None:
        """Find the defects of the image entries.

        Raises:
            UserError: it is no annotation file at all.
        """
        names: dict[str, str] = {}
        passes = self.findings.passes
        for number, entry in self.file.images():
            own = entry.get("id") if isinstance(entry, dict) else None
            self.image_ids["images"].append(_usable_id(own))
            places: list[Place] = [("images", number)]
            if not passes(
                "image_entry", places, entry, None, check_image_entry, entry, number, self.source
            ):
                continue
            first = self.images.get(entry["id"])
            # With two entries of an id nobody knows whose its annotations are.
            both = places if first is None else [("images", first.number), *places]
            is_sound = passes(
                *("image_id", both, entry, None),
                *(check_image_id, entry, self.images, self.source, self.file.form),
            ) and passes(
                *("image_sizes", places, entry, None),
                *(check_image_size, entry, self._sizes, self.source),
            )
            if is_sound:
                image = ImageEntry.of(number, entry, names)
                self.images[image.id] = image
                self.by_file.setdefault(image.file_name, []).append(image)
                if self.file.form == REFHUMAN and not passes(
                    *("caption", places, entry, None),
                    *(_check_caption, entry, self._where(image)),
                ):
                    self._without_text.add(image.id)
        self.counts["images"] = len(self.image_ids["images"])

    def shapes(self) -> Iterator[Shape]:
        """Find all other defects; to be called after `read_images`.

        Returns:
            The annotations of sound images. When there are no more, `findings` is complete.

        Raises:
            UserError: it is no annotation file at all.
        """
        known = {own for own in self.image_ids["images"] if isinstance(own, int)}
        for key, number, value in self.file.annotations_and_people():
            if key == "annotations" and number is not None:
                shape = self._read_annotation(number, value, known)
                if shape is not None:
                    yield shape
            elif key == "people":
                self._read_listed(number, value)
        self.counts["annotations"] = len(self.image_ids["annotations"])
        if self.file.form == REFHUMAN:
            self._check_pairs()
            self._check_list_of_people()

    def _read_annotation(self, number: int, annotation: Any, known: set[int]) -> Shape | None:
        places = [("annotations", number)]
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        self.image_ids["annotations"].append(_usable_id(image_id))
        about = {"id": image_id} if image_id is not None else None
        if not self.findings.passes(
            *("annotation_entry", places, about, annotation),
            *(check_image_reference, annotation, number, known, self.source),
        ):
            return None
        self.findings.passes(
            *("annotation_id", places, about, annotation),
            *(check_annotation_id, annotation, self._seen, self.source),
        )
        if image_id not in self.images:
            return None
        image = self.images[image_id]
        entry = image.as_entry()
        digest = self._digest(annotation, image)
        sound = frozenset(PARTS)
        if digest not in self._sound:
            sound = self._check_parts(entry, number, annotation)
        if len(sound) == len(PARTS):
            self._sound.add(digest)
        image.people.append(self._person(entry, number, annotation, sound))
        return Shape(entry, number, annotation, sound, digest)

    def _digest(self, annotation: Mapping[str, Any], image: ImageEntry) -> bytes:
        """See `_digest`; captions of one person mostly follow each other."""
        size = (image.height, image.width)
        last = self._last
        if last is None or last[1] != size or not share_all(annotation, last[0]):
            self._last = last = (annotation, size, _digest(annotation, image))
        return last[2]

    def _check_parts(
        self, entry: Mapping[str, Any], number: int, annotation: Mapping[str, Any]
    ) -> frozenset[str]:
        """The names of an annotation's parts that are sound."""
        frame = Frame.of_annotation(self.source, entry, annotation)
        crowds = self.file.form == COCO_KEYPOINTS
        checks = {
            "person": lambda: check_person(annotation, frame, crowd_allowed=crowds),
            "bbox": lambda: check_box(annotation, frame),
            "area": lambda: check_area(annotation, frame),
            "keypoints": lambda: check_keypoints(annotation, frame, self.skeleton),
            "segmentation": lambda: check_segmentation(annotation, frame),
            "scribble": lambda: check_scribbles(annotation, frame),
        }
        places = [("annotations", number)]
        passes = self.findings.passes
        return frozenset(
            part for part in PARTS if passes(part, places, entry, annotation, checks[part])
        )

    def _person(
        self,
        entry: Mapping[str, Any],
        number: int,
        annotation: Mapping[str, Any],
        sound: frozenset[str],
    ) -> Person:
        lacking: tuple[str | None, ...] = ()
        if self.file.form == REFHUMAN:
            lacking = tuple(get_kind(name).lacking(entry, annotation) for name in PROMPT_KINDS)
        has_key = {"bbox", "keypoints"} <= sound
        return Person(
            number,
            plain_id(annotation, "id"),
            PersonKey.of(annotation) if has_key else None,
            "keypoints" in sound and any(annotation["keypoints"][2::3]),
            self._lacking.setdefault(lacking, lacking),
        )

    def _read_listed(self, number: int | None, value: Any) -> None:
        """An entry of the optional list of everybody, or the list itself."""
        passes = self.findings.passes
        if number is None:
            if value is not None:
                self.counts["people"] = 0 if value == [] else -1
                self._listed = {} if value == [] else None
                # What is said of something that is no list.
                passes(
                    *("people", [("people", 0)], None, None),
                    *(check_people, value, {}, self.source, self.skeleton),
                )
            return
        self.counts["people"] += 1
        if passes(
            *("people", [("people", number)], None, None),
            *(check_listed_person, value, number, self._sizes, self.source, self.skeleton),
        ):
            name = value["file_name"]
            if name in self.by_file:
                self._listed.setdefault(name, []).append(PersonKey.of(value))

    def _where(self, image: ImageEntry) -> str:
        return f"{self.source}: image id {image.id}"

    def _check_pairs(self) -> None:
        single: list[ImageEntry] = []
        for image in self.images.values():
            is_pair = self.findings.passes(
                *("pair", [image.place], image.as_entry(), None),
                *(check_single, len(image.people), self._where(image)),
            )
            if is_pair and image.id not in self._without_text:
                single.append(image)
        lacking = [image.people[0].lacking for image in single]
        self.prompts = tuple(
            name
            for place, name in enumerate(PROMPT_KINDS)
            if any(of_person[place] is None for of_person in lacking)
        )
        for image in single:
            self._check_prompts(image)
        pairs = {image.id for image in single}
        for images in self.by_file.values():
            self._check_sentences([image for image in images if image.id in pairs])

    def _check_prompts(self, image: ImageEntry) -> None:
        """What is lacking is told once, whatever number of kinds of prompt need it."""
        person = image.people[0]
        lacking = {
            key: name
            for name, key in reversed(list(zip(PROMPT_KINDS, person.lacking, strict=True)))
            if key is not None and name in self.prompts
        }
        for key, name in lacking.items():
            message = describe_lacking(self._where(image), key, name)
            self.findings.add("prompt", message, [image.place], image.id, person.id)

    def _check_sentences(self, pairs: list[ImageEntry]) -> None:
        """The captions of one image file."""
        told: dict[str, ImageEntry] = {}
        for image in pairs:
            sentence = _as_said(image.caption or "")
            key = image.people[0].key
            if not sentence or key is None:
                continue
            first = told.setdefault(sentence, image)
            if not first.people[0].key.is_same(key):
                message = (
                    f"{self._where(image)}: {image.caption!r} is also said of another person of "
                    f"{image.file_name}, by image id {first.id}; a sentence has to mean one of "
                    f"them."
                )
                places = [first.place, image.place]
                self.findings.add("same_sentence", message, places, image.id, image.people[0].id)

    def _check_list_of_people(self) -> None:
        """Whether the list of everybody, where there is one, has those who are referred to."""
        if self._listed is None:
            return
        for image in self.images.values():
            others = self._listed.get(image.file_name, [])
            for person in image.people:
                is_known = person.key is None or any(person.key.is_same(key) for key in others)
                if person.is_labelled and not is_known:
                    message = (
                        f"{self._where(image)}: its person is not among the 'people' of "
                        f"{image.file_name}; add it, or leave 'people' out."
                    )
                    self.findings.add("people_lack", message, [person.place], image.id, person.id)


def _check_caption(entry: Mapping[str, Any], where: str) -> None:
    """A caption, if it is there, has to be a text with something to see; blank ones come later.

    Raises:
        UserError: it is not.
    """
    check_text(entry, "caption", where)
    caption = entry.get("caption") or ""
    if caption.strip() and not _as_said(caption):
        raise UserError(
            f"{where}: 'caption' holds nothing that can be seen, {caption!r}; write it again."
        )


def _as_said(caption: str) -> str:
    """A sentence without what a reader does not see: how letters are composed, space, marks."""
    text = unicodedata.normalize("NFC", caption)
    seen = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cf", "Cc"))
    return " ".join(seen.split()).casefold()


def _usable_id(value: Any) -> int | str | None:
    return value if isinstance(value, int | str) else None


def _digest(annotation: Mapping[str, Any], image: ImageEntry) -> bytes:
    """Of an annotation without its ids, and of its image's size.

    Raises:
        UserError: it is nested too deeply, as loading says too.
    """
    parts = {key: value for key, value in annotation.items() if key not in _IDS}
    try:
        packed = pickle.dumps((image.height, image.width, parts), pickle.HIGHEST_PROTOCOL)
    except RecursionError as error:
        raise UserError(
            f"An annotation of image id {image.id} is nested hundreds of levels deep; remove what "
            f"is not needed from it."
        ) from error
    return hashlib.blake2b(packed, digest_size=16).digest()
