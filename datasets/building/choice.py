"""Who is to be in the file, and what they are called: selection, texts and exclusions together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.building.selection import REFERRED, Selection
from datasets.building.sources import LeftOut, Source, Survey, image_key, image_keys
from datasets.building.texts import Reference, cleaned_caption, read_captions, read_refs

_PERSON = 1  # category of COCO


@dataclass(frozen=True)
class Choice:
    """Who is to be in the file.

    Attributes:
        captions: of each chosen person, by annotation id; an empty list: one pair without a
            caption.
        images: image entries by id, of all who are chosen.
    """

    captions: dict[int, list[str]]
    images: dict[int, dict[str, Any]]


def read_texts(
    source: Source,
    survey: Survey,
    *,
    refs: Sequence[Path],
    ref_splits: Sequence[str] | None,
    captions: Path | None,
    excluded: set[str | int],
) -> tuple[dict[int, list[str]], set[int]]:
    """What people are called, each sentence of a person once.

    Args:
        source: of the people; it may hold captions itself.
        survey: of it; takes what is left out.
        refs: files of the RefCOCO family.
        ref_splits: those of their splits that are wanted; None: all.
        captions: a CSV or JSON of (annotation id, caption).
        excluded: keys of images (see `image_key`) that nobody is taken from.

    Returns:
        Captions by annotation id, and the annotation ids of those files' people.

    Raises:
        UserError: a file is broken.
    """
    texts: dict[int, dict[str, None]] = {}
    left_out = survey.left_out

    def add(own: int, caption: str) -> None:
        try:
            texts.setdefault(own, {})[cleaned_caption(caption)] = None
        except ValueError as error:
            left_out.add(f"expression: {error}", own)

    referred: set[int] = set()
    known_images = image_keys(survey.images)
    for file in refs:
        for reference in read_refs(file):
            if ref_splits is not None and reference.split not in ref_splits:
                left_out.add("reference: of another split")
            elif _fits(reference, source, survey, known_images, excluded):
                referred.add(reference.annotation_id)
                for sentence in reference.sentences:
                    add(reference.annotation_id, sentence)
    for own, caption in [*source.captions(), *(read_captions(captions) if captions else [])]:
        if own in survey.people:
            add(own, caption)
        else:
            left_out.add(f"expression: {source.path.name} has no such person", own)
    return {own: list(captions) for own, captions in texts.items() if captions}, referred


def _fits(
    reference: Reference,
    source: Source,
    survey: Survey,
    known_images: set[str | int],
    excluded: set[str | int],
) -> bool:
    """Whether a reference is of a person that may be taken; if not, it is noted why."""
    own, image_id, left_out = reference.annotation_id, reference.image_id, survey.left_out
    if image_id in excluded:
        left_out.add("reference: of an excluded image", image_id)
    elif image_id not in known_images:
        left_out.add(f"reference: {source.path.name} does not have its image", image_id)
    elif reference.category_id != _PERSON:
        left_out.add("reference: not of a person")
    elif own not in survey.people:
        left_out.add(f"reference: {source.path.name} has no such person", own)
    elif image_key(survey.images[survey.people[own].image_id]["file_name"]) != image_id:
        left_out.add("reference: its person is in another image", own)
    else:
        return True
    return False


def choose(
    survey: Survey,
    selection: Selection,
    texts: Mapping[int, list[str]],
    *,
    besides: set[int],
    excluded: set[str | int],
    text_is_needed: bool,
) -> Choice:
    """Who is to be in the file; the others are noted in `survey.left_out`.

    Args:
        survey: of the people.
        selection: what they need.
        texts: captions by annotation id.
        besides: annotation ids of those who only need what `REFERRED` says.
        excluded: keys of images (see `image_key`) that nobody is taken from.
        text_is_needed: who has no caption is left out.
    """
    left_out: LeftOut = survey.left_out
    in_image = Counter(person.image_id for person in survey.people.values())
    chosen: dict[int, list[str]] = {}
    for own, person in survey.people.items():
        image = survey.images[person.image_id]
        if image_key(image["file_name"]) in excluded:
            left_out.add("person: of an excluded image")
            continue
        rules = [selection, REFERRED] if own in besides else [selection]
        pixels = image["height"] * image["width"]
        others = in_image[person.image_id] - 1
        reasons = [
            rule.reason_against(others, person.labelled, person.area / pixels) for rule in rules
        ]
        reason = reasons[-1] if None not in reasons else None
        if reason is None and text_is_needed and own not in texts:
            reason = "without text"
        if reason is not None:
            left_out.add(f"person: {reason}")
        else:
            chosen[own] = texts.get(own, [])
    images = {survey.people[own].image_id for own in chosen}
    return Choice(chosen, {number: e for number, e in survey.images.items() if number in images})
