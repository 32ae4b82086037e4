"""The way from a source of annotations to a RefHuman file.

Who is in it is decided first, from a survey of the source; then images are looked at and people are
made, in parts that several processes write beside the output; in the end the parts are joined. An
interrupted run goes on with the parts that are missing. No list of all annotations is ever held.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from datasets.building.choice import Choice
from datasets.building.people import Making, make_annotation, people_entry
from datasets.building.sources import LeftOut, Source
from util.command_line import output_folder
from util.errors import UserError
from util.files import remove_leftovers, written_whole
from util.images import load_image
from util.processes import in_order

PART_SIZE = 200
"""Images, or people, that a process takes at a time."""

Record = dict[str, Any]


@dataclass(frozen=True)
class ImagesPart:
    """Images to be looked at by one process."""

    file: Path
    folder: Path
    entries: list[Record]


@dataclass(frozen=True)
class PeoplePart:
    """People to be made by one process: (annotation, image entry, captions, None: others)."""

    file: Path
    making: Making
    people: list[tuple[Record, Record, list[str] | None]]


# --- parts: what the processes do ----------------------------------------------------------------


def look_at_images(part: ImagesPart) -> int:
    """Decode images, and write down those that cannot be used, and names that differ.

    Returns:
        How many images there were.
    """
    lines = []
    for entry in part.entries:
        name = entry["file_name"]
        if not (part.folder / name).is_file() and (part.folder / Path(name).name).is_file():
            name = Path(name).name  # exports often name a folder that was only theirs
            lines.append({"image_id": entry["id"], "file_name": name})
        try:
            load_image(part.folder / name, size=(entry["height"], entry["width"]))
        except UserError as error:
            lines.append({"image_id": entry["id"], "why": str(error)})
    _write_lines(part.file, lines)
    return len(part.entries)


def make_people(part: PeoplePart) -> int:
    """Make annotations and entries of "people", and write them down; returns how many people."""
    lines: list[Record] = []
    for annotation, image_entry, captions in part.people:
        own = annotation["id"]
        try:
            lines.append({"person": people_entry(annotation, image_entry, part.making)})
        except UserError as error:
            if captions is None:
                lines.append({"left_out": "other person: broken", "id": own, "why": str(error)})
        if captions is None:
            continue
        try:
            record = make_annotation(annotation, image_entry, part.making)
        except UserError as error:
            reason = "has no mask" if str(error).endswith(": has no mask") else "broken"
            lines.append({"left_out": f"person: {reason}", "id": own, "why": str(error)})
            continue
        kept = {key: image_entry[key] for key in ("file_name", "height", "width")}
        pair = {"image": {**kept, "coco_id": image_entry["id"]}, "annotation": record}
        lines.append({**pair, "captions": captions})
    _write_lines(part.file, lines)
    return len(part.people)


def _finish(work: Callable[[Any], int], task: ImagesPart | PeoplePart) -> int:
    """Do a part, unless its file is there already; returns how many images or people it has."""
    if task.file.is_file():
        return len(task.entries if isinstance(task, ImagesPart) else task.people)
    cv2.setNumThreads(1)
    return work(task)


def _write_lines(path: Path, lines: Iterable[Record]) -> None:
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(_encoded(line) + "\n" for line in lines)


def _read_lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _encoded(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


# --- all parts -----------------------------------------------------------------------------------


class Building:
    """A RefHuman file in the making.

    Args:
        source: of the annotations.
        images_folder: of the images.
        making: how people are written.
        output: the file.
        settings: everything that decides what is written, as plain values; an unfinished run with
            other settings is not gone on with.
        workers: processes.

    Raises:
        UserError: beside the output there is an unfinished run with other settings.
    """

    def __init__(
        self,
        source: Source,
        images_folder: Path,
        making: Making,
        output: Path,
        *,
        settings: Record,
        workers: int,
    ) -> None:
        self._source, self._images_folder, self._making = source, images_folder, making
        self._output, self._workers = output, workers
        self._parts = output.with_name(f"{output.name}.parts")
        self._settings = settings
        self._prepare()

    def _prepare(self) -> None:
        output_folder(self._parts, "--output")
        remove_leftovers(self._parts)
        file = self._parts / "settings.json"
        wanted = json.loads(_encoded(self._settings))
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            if found != wanted:
                different = [key for key in wanted if found.get(key) != wanted[key]]
                raise UserError(
                    f"{self._parts} holds an unfinished run with other settings "
                    f"({', '.join(different)}); remove the folder, or give another --output."
                )
        else:
            with written_whole(file) as temporary:
                temporary.write_text(_encoded(wanted), encoding="utf-8")

    def build(self, choice: Choice, people: dict[int, int], left_out: LeftOut) -> Record:
        """Write the file.

        Args:
            choice: who is to be in it.
            people: image id of every person of the source who is no crowd, by annotation id.
            left_out: takes what is left out from here on.

        Returns:
            images, people and pairs (expressions, where there are captions) that were written.

        Raises:
            UserError: nobody is left.
            OSError: the disk is full, or cannot be written to. The same call goes on then.
        """
        captions = dict(choice.captions)
        images = self._usable_images(choice.images, captions, people, left_out)
        captions = {own: texts for own, texts in captions.items() if people[own] in images}
        needed = {people[own] for own in captions}
        # Everybody in these images goes into the list "people".
        wanted = {own for own, image_id in people.items() if image_id in needed}
        files = self._write_people(captions, images, wanted)
        return self._join(files, left_out)

    def finish(self) -> None:
        """Remove what an interrupted run would go on with."""
        shutil.rmtree(self._parts)

    def _usable_images(
        self,
        entries: dict[int, Record],
        captions: dict[int, list[str]],
        people: dict[int, int],
        left_out: LeftOut,
    ) -> dict[int, Record]:
        images = dict(entries)
        tasks = []
        for number, batch in enumerate(_batches(entries.values())):
            file = self._parts / f"images_{number:06d}.jsonl"
            tasks.append(ImagesPart(file, self._images_folder, batch))
        self._run(look_at_images, tasks, len(entries), "image")
        of_image: dict[int, int] = {}
        for own in captions:
            of_image[people[own]] = of_image.get(people[own], 0) + 1
        for task in tasks:
            for line in _read_lines(task.file):
                if "why" in line:
                    del images[line["image_id"]]
                    left_out.add("image: cannot be used", line["image_id"], line["why"])
                    count = of_image.get(line["image_id"], 0)
                    left_out.add("person: of an image that cannot be used", count=count)
                else:
                    entry = images[line["image_id"]]
                    images[line["image_id"]] = {**entry, "file_name": line["file_name"]}
        return images

    def _write_people(
        self, captions: dict[int, list[str]], images: dict[int, Record], wanted: set[int]
    ) -> list[Path]:
        files: list[Path] = []

        def people() -> Iterator[tuple[Record, Record, list[str] | None]]:
            missing = set(wanted)
            for annotation in self._source.annotations():
                own = annotation.get("id")
                if own in missing:
                    missing.remove(own)  # of an id that occurs twice the first counts
                    yield annotation, images[annotation["image_id"]], captions.get(own)

        def tasks() -> Iterator[PeoplePart]:
            for number, batch in enumerate(_batches(people())):
                files.append(self._parts / f"people_{number:06d}.jsonl")
                yield PeoplePart(files[-1], self._making, batch)

        self._run(make_people, tasks(), len(wanted), "person")
        return files

    def _run(self, work: Callable[[Any], int], tasks: Iterable[Any], total: int, unit: str) -> None:
        """Do all parts whose files are not there yet."""
        with (
            tqdm(total=total, unit=unit, disable=None) as progress,
            closing(in_order(partial(_finish, work), tasks, self._workers)) as counts,
        ):
            try:
                for count in counts:
                    progress.update(count)
            except BaseException:
                counts.close()
                remove_leftovers(self._parts)  # of the processes that were ended
                raise

    def _join(self, files: list[Path], left_out: LeftOut) -> Record:
        """Write the output from all parts, with ids from 1."""
        counts = {"images": 0, "people": 0, "pairs": 0}
        names = set()
        for line in _lines_of(files):
            if "left_out" in line:
                left_out.add(line["left_out"], line["id"], line["why"])
            elif "annotation" in line:
                names.add(line["image"]["file_name"])
                counts["people"] += 1
                counts["pairs"] += len(line["captions"]) or 1
        counts["images"] = len(names)
        if not counts["pairs"]:
            self.finish()  # or another selection would be refused because of them
            reasons = ", ".join(f"{count} x {why}" for why, count in left_out.counts.most_common(5))
            example = next((w for d in left_out.details.values() for w in d.values() if w), "")
            raise UserError(
                f"Nobody of {self._source.path} is left ({reasons}). {example}".rstrip()
                + " Mend the data, or select less strictly (--everybody)."
            )
        about = {
            "info": {"description": "RefHuman", "settings": self._settings},
            "categories": [
                {"id": 1, "name": "person", "keypoints": list(self._making.skeleton.names)}
            ],
        }
        with (
            written_whole(self._output) as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            file.write(_encoded(about)[:-1])
            for name, entries in (
                ("images", _image_entries(files)),
                ("annotations", _annotation_entries(files)),
                ("people", _people_entries(files, names)),
            ):
                file.write(f',"{name}":[')
                for number, entry in enumerate(entries):
                    file.write(",\n" if number else "\n")
                    file.write(entry)
                file.write("]")
            file.write("}\n")
        return counts


def _lines_of(files: Iterable[Path]) -> Iterator[Record]:
    for file in files:
        yield from _read_lines(file)


def _image_entries(files: Iterable[Path]) -> Iterator[str]:
    number = 0
    for line in _lines_of(files):
        if "annotation" in line:
            for caption in line["captions"] or [None]:
                number += 1
                text = {} if caption is None else {"caption": caption}
                yield _encoded({"id": number, **line["image"], **text})


def _annotation_entries(files: Iterable[Path]) -> Iterator[str]:
    number = 0
    for line in _lines_of(files):
        if "annotation" in line:
            body = _encoded(line["annotation"])[1:]  # which a person's pairs share
            for _ in line["captions"] or [None]:
                number += 1
                yield f'{{"id":{number},"image_id":{number},{body}'


def _people_entries(files: Iterable[Path], names: set[str]) -> Iterator[str]:
    for line in _lines_of(files):
        if "person" in line and line["person"]["file_name"] in names:
            yield _encoded(line["person"])


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, PART_SIZE)):
        yield batch
