"""Writes the synthetic data set as a RefHuman folder.

    python tools/make_synthetic.py --output data/synthetic --train 2000 --val 300 --seed 0

The folder then holds images/, RefHuman_train.json and RefHuman_val.json and is read like RefHuman:
`--options dataset=refhuman coco_path=data/synthetic`.  An image comes with several pairs: up to
three captions for everybody in it who can be referred to.

Interrupted, the same command goes on where it stopped; what it has written is never incomplete.
The same settings and seed give the same files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import cv2

from datasets.synthetic import CATEGORIES, SPLITS, SceneGenerator, people_entries, scene_pairs
from util.command_line import output_folder, require_range, run_program
from util.errors import UserError
from util.files import written_whole

PART_SIZE = 50
"""Images that one process writes at a time."""

_PARTS_FOLDER = "parts"  # of an unfinished data set: settings.json and one file per PART_SIZE
_JPEG_QUALITY = 95


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is complete or not there at all."""
    with written_whole(path) as temporary:
        temporary.write_text(_encoded(content), encoding="utf-8")


def part_path(folder: Path, split: str, first: int) -> Path:
    """File of the entries of the PART_SIZE scenes from `first` on, until all are joined.

    Its three paragraphs are the image entries, the annotations and the people, one to a line, as
    they will be written; the first two begin after the ids, which the joined file counts anew.
    """
    return folder / _PARTS_FOLDER / f"{split}_{first:08d}.txt"


def _encoded(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"))


def _encoded_after_ids(entry: dict[str, Any]) -> str:
    """An image entry's or annotation's JSON behind its ids."""
    return _encoded({key: entry[key] for key in entry if key not in ("id", "image_id")})[1:]


def write_part(task: tuple[Path, str, int, int, dict[str, Any]]) -> int:
    """Write images and entries of scenes `first` to `last` - 1 of a split; their number."""
    folder, split, first, last, settings = task
    cv2.setNumThreads(1)
    generator = SceneGenerator(
        settings["seed"],
        split,
        image_size=tuple(settings["image_size"]),
        num_people=tuple(settings["num_people"]),
        difficulty=settings["difficulty"],
    )
    images: list[str] = []
    annotations: list[str] = []
    people: list[str] = []
    for index in range(first, last):
        name = f"{split}_{index:08d}.{settings['format']}"
        scene, pairs = scene_pairs(generator, index, name, settings["captions"])
        options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if settings["format"] == "jpg" else []
        pixels = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
        _, encoded = cv2.imencode(f".{settings['format']}", pixels, options)
        with written_whole(folder / "images" / name) as temporary:
            temporary.write_bytes(encoded.tobytes())
        of_person: dict[int, str] = {}  # all captions of a person share what is annotated
        for entry, record in pairs:
            person = record["person_id"]
            if person not in of_person:
                of_person[person] = _encoded_after_ids(record)
            images.append(_encoded_after_ids(entry))
            annotations.append(of_person[person])
        people += map(_encoded, people_entries(scene, name))
    paragraphs = "\n\n".join("\n".join(lines) for lines in (images, annotations, people))
    with written_whole(part_path(folder, split, first)) as temporary:
        temporary.write_text(paragraphs, encoding="utf-8")
    return last - first


def join_parts(folder: Path, split: str, count: int, settings: dict[str, Any]) -> int:
    """Join the parts of a split into its annotation file, with ids from 1; the number of pairs."""
    images: list[str] = []
    annotations: list[str] = []
    people: list[str] = []
    for first in range(0, count, PART_SIZE):
        paragraphs = part_path(folder, split, first).read_text(encoding="utf-8").split("\n\n")
        of_images, of_annotations, of_people = (paragraph.split("\n") for paragraph in paragraphs)
        for entry, record in zip(of_images, of_annotations, strict=True):
            number = len(images) + 1
            images.append(f'{{"id":{number},{entry}')
            annotations.append(f'{{"id":{number},"image_id":{number},{record}')
        people += of_people
    about = {
        "info": {"description": "synthetic RefHuman", "settings": settings},
        "categories": CATEGORIES,
    }
    lists = {"images": images, "annotations": annotations, "people": people}
    with (
        written_whole(folder / f"RefHuman_{split}.json") as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        file.write(_encoded(about)[:-1])
        for name, entries in lists.items():
            file.write(f',"{name}":[')
            file.write(",".join(entries))
            file.write("]")
        file.write("}")
    return len(images)


def prepare_folder(folder: Path, settings: dict[str, Any]) -> bool:
    """Make the folder, or check that what is there is the same data set.

    Returns:
        Whether the data set is complete already.

    Raises:
        UserError: the folder holds something else.
    """
    settings_file = folder / _PARTS_FOLDER / "settings.json"
    finished_files = [folder / f"RefHuman_{split}.json" for split in SPLITS]
    remedy = "give another --output, or remove the folder"
    output_folder(folder, "--output")
    if settings_file.is_file():
        found = _read_object(settings_file)
        if found != settings:
            raise UserError(
                f"{folder} holds an unfinished data set with other settings "
                f"({_differences(found, settings)}); {remedy}"
            )
        return False
    if all(path.is_file() for path in finished_files):
        info = _read_object(finished_files[0]).get("info")
        found = info.get("settings") if isinstance(info, dict) else None
        if found != settings:
            different = _differences(found, settings) if isinstance(found, dict) else "not by us"
            raise UserError(f"{folder} holds another data set ({different}); {remedy}")
        return True
    if any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no synthetic data set; {remedy}")
    write_json(settings_file, settings)
    return False


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file that an earlier run of this program wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); remove the folder") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not ours: expected a JSON object; give another --output")
    return content


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    keys = [key for key in wanted if found.get(key) != wanted[key]]
    return ", ".join(f"{key}: there {found.get(key)}, asked for {wanted[key]}" for key in keys)


def make(folder: Path, settings: dict[str, Any], workers: int) -> None:
    """Write the data set, or what is missing of it.

    Args:
        folder: where to.
        settings: what `settings_from` returns.
        workers: processes.
    """
    if prepare_folder(folder, settings):
        print(f"{folder} is complete already.")
        return
    tasks = []
    for split in SPLITS:
        for first in range(0, settings[split], PART_SIZE):
            last = min(first + PART_SIZE, settings[split])
            if not part_path(folder, split, first).is_file():
                tasks.append((folder, split, first, last, settings))
    total = sum(settings[split] for split in SPLITS)
    missing = sum(last - first for _, _, first, last, _ in tasks)
    done = total - missing
    if done:
        print(f"{done} of {total} images are there already.")
    start = time.monotonic()
    workers = min(workers, len(tasks))
    with contextlib.ExitStack() as stack:
        if workers > 1:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(context.Pool(workers, _leave_interruption_to_parent))
            finished = pool.imap_unordered(write_part, tasks)
        else:
            finished = map(write_part, tasks)
        for number in finished:
            done += number
            elapsed = time.monotonic() - start
            rate = (done - total + missing) / elapsed
            left = (total - done) / rate
            print(f"{done}/{total} images, {rate:.0f}/s, {left:.0f} s left", flush=True)
    for split in SPLITS:
        pairs = join_parts(folder, split, settings[split], settings)
        print(f"RefHuman_{split}.json: {settings[split]} images, {pairs} pairs")
    for path in (folder / _PARTS_FOLDER).iterdir():
        path.unlink()
    (folder / _PARTS_FOLDER).rmdir()


def _leave_interruption_to_parent() -> None:
    """Ctrl-C reaches all processes; the parent ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def settings_from(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that decides what is written.

    Raises:
        UserError: a setting is out of its range.
    """
    require_range(1, 10**8, train=arguments.train, val=arguments.val)
    require_range(1, 1000, captions=arguments.captions, workers=arguments.workers)
    for side in arguments.image_size:
        require_range(48, 8192, **{"image-size": side})
    side = arguments.image_size
    if len(side) > 2:
        raise UserError(f"--image-size takes one number or two, got {len(side)}")
    sides = [side[0], side[-1]]
    settings = {
        "train": arguments.train,
        "val": arguments.val,
        "seed": arguments.seed,
        "image_size": [sides, sides],
        "num_people": arguments.people,
        "difficulty": arguments.difficulty,
        "captions": arguments.captions,
        "format": arguments.format,
    }
    SceneGenerator(  # refuses what it cannot draw, before anything is written
        arguments.seed,
        image_size=(sides, sides),
        num_people=arguments.people,
        difficulty=arguments.difficulty,
    )
    return settings


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--train", type=int, required=True, help="training images")
    parser.add_argument("--val", type=int, required=True, help="images of the held-out split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        default=[192],
        metavar="PIXELS",
        help="side of the images, or the smallest and the largest (default: 192)",
    )
    parser.add_argument(
        "--people",
        type=int,
        nargs=2,
        default=[1, 6],
        metavar=("FEWEST", "MOST"),
        help="people in an image (default: 1 6)",
    )
    parser.add_argument(
        "--difficulty", type=float, default=1.0, help="from 0, plain, to 1 (default: 1)"
    )
    parser.add_argument(
        "--captions", type=int, default=3, help="the most captions of a person (default: 3)"
    )
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    arguments = parser.parse_args()
    make(arguments.output, settings_from(arguments), arguments.workers)


if __name__ == "__main__":
    sys.exit(run_program(main))
