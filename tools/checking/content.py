"""Defects of an annotation file's entries: loading's own checks, one by one, and those across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from checking.defects import Findings, Place
from datasets.annotations import (
    check_image_entry,
    check_image_id,
    check_image_reference,
    check_image_size,
    require_lists,
    same_person,
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
from datasets.refhuman import check_prompts, check_single
from datasets.skeleton import Skeleton

REFHUMAN, COCO_KEYPOINTS = "RefHuman", "COCO keypoints"


@dataclass
class Person:
    """An annotation whose form was checked.

    Attributes:
        number: in the file's `annotations`.
        annotation: the entry itself.
        sound: parts (`bbox`, `segmentation`, `keypoints`, `scribble`, `area`) without a defect.
    """

    number: int
    annotation: Mapping[str, Any]
    sound: set[str] = field(default_factory=set)


@dataclass
class CheckedImage:
    """An image entry without a defect.

    Attributes:
        number: in the file's `images`.
        entry: the entry itself.
        people: its annotations.
    """

    number: int
    entry: Mapping[str, Any]
    people: list[Person] = field(default_factory=list)

    @property
    def place(self) -> Place:
        """Where the entry is."""
        return ("images", self.number)


def form_of(content: Any, source: str) -> str:
    """Which form a file has: RefHuman's where anything refers to somebody, else COCO's.

    Raises:
        UserError: neither.
    """
    require_lists(content, source, f"{REFHUMAN} or {COCO_KEYPOINTS}")
    refers = "people" in content or any(
        isinstance(entry, dict) and not entry.keys().isdisjoint(("caption", "scribble"))
        for entry in (*content["images"], *content["annotations"])
    )
    return REFHUMAN if refers else COCO_KEYPOINTS


@dataclass
class ContentCheck:
    """The check of a file's entries, without masks drawn and images opened.

    Args:
        content: the parsed JSON; see `form_of`.
        source: its name, for messages.
        skeleton: keypoint definition.

    Attributes:
        form: `REFHUMAN` or `COCO_KEYPOINTS`.
        findings: the defects, after `run`.
        images: the image entries that are sound, by id, after `run`.
        prompts: kinds of prompt that somebody in the file has what is needed for, after `run`.
    """

    content: dict[str, Any]
    source: str
    skeleton: Skeleton
    form: str = ""
    findings: Findings = field(default_factory=Findings)
    images: dict[int, CheckedImage] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()

    def run(self) -> None:
        """Find the defects.

        Raises:
            UserError: it is no annotation file at all.
        """
        self.form = form_of(self.content, self.source)
        self._check_images()
        self._check_annotations()
        if self.form == REFHUMAN:
            self._check_pairs()
            self._check_people()

    def _check_images(self) -> None:
        sizes: dict[str, tuple[int, int]] = {}
        passes = self.findings.passes
        for number, entry in enumerate(self.content["images"]):
            places: list[Place] = [("images", number)]
            if not passes(
                "image_entry",
                places,
                entry,
                None,
                lambda e=entry, n=number: check_image_entry(e, n, self.source),
            ):
                continue  # fmt: skip
            first = self.images.get(entry["id"])
            # With two entries of an id nobody knows whose its annotations are.
            both = places if first is None else [first.place, *places]
            if passes(
                "image_id", both, entry, None,
                lambda e=entry: check_image_id(e, self.images, self.source, self.form),
            ) and passes(
                "image_sizes", places, entry, None,
                lambda e=entry: check_image_size(e, sizes, self.source),
            ):  # fmt: skip
                self.images[entry["id"]] = CheckedImage(number, entry)

    def _check_annotations(self) -> None:
        seen: dict[Any, int] = {}
        known = {
            entry.get("id")
            for entry in self.content["images"]
            if isinstance(entry, dict) and isinstance(entry.get("id"), int)
        }
        for number, annotation in enumerate(self.content["annotations"]):
            places = [("annotations", number)]
            image = annotation.get("image_id") if isinstance(annotation, dict) else None
            about = {"id": image} if image is not None else None
            if not self.findings.passes(
                "annotation_entry",
                places,
                about,
                annotation,
                lambda a=annotation, n=number: check_image_reference(a, n, known, self.source),
            ):
                continue  # fmt: skip
            self.findings.passes(
                "annotation_id", places, about, annotation,
                lambda a=annotation: check_annotation_id(a, seen, self.source),
            )  # fmt: skip
            if image in self.images:
                self._check_person(self.images[image], number, annotation)

    def _check_person(
        self, image: CheckedImage, number: int, annotation: Mapping[str, Any]
    ) -> None:
        frame = Frame.of_annotation(self.source, image.entry, annotation)
        crowds = self.form == COCO_KEYPOINTS
        person = Person(number, annotation)
        checks = {
            "person": lambda: check_person(annotation, frame, crowd_allowed=crowds),
            "bbox": lambda: check_box(annotation, frame),
            "area": lambda: check_area(annotation, frame),
            "keypoints": lambda: check_keypoints(annotation, frame, self.skeleton),
            "segmentation": lambda: check_segmentation(annotation, frame),
            "scribble": lambda: check_scribbles(annotation, frame),
        }
        places = [("annotations", number)]
        for kind, check in checks.items():
            if self.findings.passes(kind, places, image.entry, annotation, check):
                person.sound.add(kind)
        image.people.append(person)

    def _where(self, image: CheckedImage) -> str:
        return f"{self.source}: image id {image.entry['id']}"

    def _check_pairs(self) -> None:
        single: list[tuple[CheckedImage, Person]] = []
        for image in self.images.values():
            annotations = [person.annotation for person in image.people]
            where = self._where(image)
            is_pair = self.findings.passes(
                "pair", [image.place], image.entry, None,
                lambda a=annotations, w=where: check_single(a, w),
            )  # fmt: skip
            has_text = self.findings.passes(
                "caption", [image.place], image.entry, None,
                lambda i=image, w=where: check_text(i.entry, "caption", w),
            )  # fmt: skip
            if is_pair and has_text:
                single.append((image, image.people[0]))
        self.prompts = tuple(
            name
            for name in PROMPT_KINDS
            if any(get_kind(name).lacking(i.entry, p.annotation) is None for i, p in single)
        )
        for image, person in single:
            self._check_prompts(image, person)
        self._check_sentences(single)

    def _check_prompts(self, image: CheckedImage, person: Person) -> None:
        """What is lacking is told once, whatever number of kinds of prompt need it."""
        lacking = {
            get_kind(name).lacking(image.entry, person.annotation): name
            for name in reversed(self.prompts)
        }
        for key, name in lacking.items():
            if key is not None:
                self.findings.passes(
                    "prompt", [image.place], image.entry, person.annotation,
                    lambda n=name: check_prompts(
                        image.entry, person.annotation, self._where(image), [n]
                    ),
                )  # fmt: skip

    def _check_sentences(self, pairs: Sequence[tuple[CheckedImage, Person]]) -> None:
        told: dict[tuple[str, str], list[tuple[CheckedImage, Person]]] = {}
        for image, person in pairs:
            sentence = " ".join((image.entry.get("caption") or "").split()).casefold()
            if sentence and {"bbox", "keypoints"} <= person.sound:
                told.setdefault((image.entry["file_name"], sentence), []).append((image, person))
        for (name, _), pairs_of_sentence in told.items():
            first_image, first = pairs_of_sentence[0]
            for image, person in pairs_of_sentence[1:]:
                if not same_person(first.annotation, person.annotation):
                    message = (
                        f"{self._where(image)}: {image.entry['caption']!r} is also said of another "
                        f"person of {name}, by image id {first_image.entry['id']}; a sentence has "
                        f"to mean one of them."
                    )
                    places = [first_image.place, image.place]
                    self.findings.add(
                        "same_sentence", message, places, image.entry, person.annotation
                    )

    def _check_people(self) -> None:
        """The optional list of everybody, and whether it has those who are referred to."""
        people = self.content.get("people")
        if people is None:
            return
        if not isinstance(people, list):
            self.findings.passes(
                "people", [("people", 0)], None, None,
                lambda: check_people(people, {}, self.source, self.skeleton),
            )  # fmt: skip
            return
        sizes = {
            i.entry["file_name"]: (i.entry["height"], i.entry["width"])
            for i in self.images.values()
        }
        listed: dict[str, list[Mapping[str, Any]]] = {}
        for number, person in enumerate(people):
            if self.findings.passes(
                "people", [("people", number)], None, None,
                lambda p=person, n=number: check_listed_person(
                    p, n, sizes, self.source, self.skeleton
                ),
            ):  # fmt: skip
                listed.setdefault(person["file_name"], []).append(person)
        for image in self.images.values():
            others = listed.get(image.entry["file_name"], [])
            for person in image.people:
                is_labelled = "keypoints" in person.sound and any(
                    person.annotation["keypoints"][2::3]
                )
                if (
                    is_labelled
                    and "bbox" in person.sound
                    and not any(same_person(other, person.annotation) for other in others)
                ):
                    message = (
                        f"{self._where(image)}: its person is not among the 'people' of "
                        f"{image.entry['file_name']}; add it, or leave 'people' out."
                    )
                    place = ("annotations", person.number)
                    self.findings.add(
                        "people_lack", message, [place], image.entry, person.annotation
                    )
