"""Make a RefHuman file from COCO keypoints, or from a CSV of your own.

    python tools/build_refhuman.py --annotations person_keypoints_train2017.json --images IMAGES \
        --split train --output data/RefHuman/RefHuman_train.json --refs refcoco refcoco+ refcocog

Who is taken follows Table 1 of the paper, unless options say otherwise; --everybody takes all. What
people are called comes from --refs, --captions or a CSV's column; without any, every person is one
pair for scribbles and points. Everybody gets five scribbles inside the mask, which follow from the
seed and the annotation's id alone.

Beside the output, FILE_summary.json says what was left out and why. Interrupted, the same command
goes on where it stopped. The output is complete or not there at all.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable

from datasets.building.build import Building
from datasets.building.choice import choose, read_texts
from datasets.building.own_data import CsvFile
from datasets.building.people import Making
from datasets.building.selection import PAPER, Selection
from datasets.building.sources import (
    CocoFile,
    LeftOut,
    Source,
    image_key,
    plain_name,
)
from datasets.building.texts import find_refs_file, read_csv
from datasets.json_stream import read_lists
from datasets.skeleton import SKELETONS, get_skeleton
from util.command_line import output_file, require_range, run_program
from util.errors import MissingFileError, UserError
from util.logging import write_json


def read_image_keys(files: Iterable[Path]) -> set[str | int]:
    """What tells the images of other annotation files apart (COCO, RefHuman or CSV)."""
    keys: set[str | int] = set()
    for file in files:
        if file.suffix.lower() == ".csv":
            rows = [row for _, row in read_csv(file)]
            names = [name.strip().lower() for name in rows[0]] if rows else []
            if "file_name" not in names:
                raise UserError(f"--exclude {file}: its first line has no column 'file_name'.")
            place = names.index("file_name")
            keys |= {image_key(plain_name(row[place].strip())) for row in rows[1:]}
            continue
        for _, entry in read_lists(file, ("images",)):
            name = entry.get("file_name") if isinstance(entry, dict) else None
            if not isinstance(name, str):
                raise UserError(f"--exclude {file}: an entry of 'images' has no 'file_name'.")
            keys.add(image_key(plain_name(name)))
    return keys


def excluded_files(arguments: argparse.Namespace) -> list[Path]:
    """Files of validation images, which must not be trained on.

    Those of --exclude, or else the file beside the annotations that is called val instead of train.
    """
    if arguments.exclude is not None:
        return arguments.exclude
    name = arguments.annotations.name
    beside = arguments.annotations.with_name(name.replace("train", "val"))
    if arguments.split == "train" and beside.name != name and beside.is_file():
        print(f"Images of {beside} are excluded (--exclude names other files).")
        return [beside]
    return []


def settings_of(
    arguments: argparse.Namespace, selection: Selection, excluded: list[Path]
) -> dict[str, Any]:
    """Everything that decides what is written, files by their contents."""
    captions = [arguments.captions] if arguments.captions else []
    refs = [find_refs_file(path) for path in arguments.refs]
    files = [arguments.annotations, *refs, *captions, *excluded]
    return {
        # With their folders' names, by which files of the RefCOCO family differ.
        "files": {f"{file.resolve().parent.name}/{file.name}": _digest(file) for file in files},
        "split": arguments.split,
        "selection": asdict(selection),
        "ref_splits": arguments.ref_splits,
        "keep_without_text": arguments.keep_without_text,
        "box_masks": arguments.box_masks,
        "skeleton": arguments.skeleton,
        "seed": arguments.seed,
    }


def _digest(file: Path) -> str:
    if not file.is_file():
        raise MissingFileError(f"{file} does not exist; check the path.")
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def report(counts: dict[str, Any], left_out: LeftOut, output: Path, summary: Path) -> None:
    """Print what was written and what was left out."""
    print(f"{output}: {', '.join(f'{count} {what}' for what, count in counts.items())}")
    if left_out.counts:
        print(f"Left out (ids in {summary}):")
    for reason, count in sorted(left_out.counts.items()):
        print(f"  {count:>9,}  {reason}")


def build(arguments: argparse.Namespace) -> None:
    """Make the file that the command line asks for."""
    require_range(1, 1000, workers=arguments.workers)
    require_range(0, 2**63 - 1, seed=arguments.seed)
    rules = Selection() if arguments.everybody else PAPER[arguments.split]
    given = {"surrounding": arguments.surrounding, "keypoints": arguments.keypoints}
    given |= {"area_share": arguments.area}
    given = {name: value for name, value in given.items() if value is not None}
    selection = Selection(**{**asdict(rules), **given})
    if arguments.ref_splits and not arguments.refs:
        raise UserError("--ref_splits chooses among --refs; give --refs, or leave it out.")
    inputs = [arguments.annotations, *arguments.refs, *(arguments.exclude or [])]
    inputs += [arguments.captions] if arguments.captions else []
    output = output_file(arguments.output, "--output", (".json",), inputs)
    if not arguments.images.is_dir():
        raise MissingFileError(f"--images {arguments.images}: there is no such folder.")
    others = excluded_files(arguments)
    settings = settings_of(arguments, selection, others)
    skeleton = get_skeleton(arguments.skeleton)
    if arguments.annotations.suffix.lower() == ".csv":
        source: Source = CsvFile(arguments.annotations, arguments.images)
    else:
        source = CocoFile(arguments.annotations, skeleton)
    survey = source.survey()
    excluded = read_image_keys(others)
    texts, referred = read_texts(
        source,
        survey,
        refs=[find_refs_file(path) for path in arguments.refs],
        ref_splits=arguments.ref_splits,
        captions=arguments.captions,
        excluded=excluded,
    )
    text_is_needed = bool(texts or arguments.refs or arguments.captions)
    choice = choose(
        survey,
        selection,
        texts,
        # In validation references only give texts.
        besides=referred if arguments.split == "train" else set(),
        excluded=excluded,
        text_is_needed=text_is_needed and not arguments.keep_without_text,
    )
    making = Making(
        str(arguments.annotations), skeleton, seed=arguments.seed, box_masks=arguments.box_masks
    )
    building = Building(
        source, arguments.images, making, output, settings=settings, workers=arguments.workers
    )
    people = {own: person.image_id for own, person in survey.people.items()}
    counts = building.build(choice, people, survey.left_out)
    summary = output.with_name(f"{output.stem}_summary.json")
    content = {
        "written": counts,
        "left_out": {
            reason: {"count": count, "ids": survey.left_out.details.get(reason, {})}
            for reason, count in sorted(survey.left_out.counts.items())
        },
        "settings": settings,
    }
    write_json(summary, content)
    building.finish()
    report(counts, survey.left_out, output, summary)


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--annotations", type=Path, required=True, help="COCO keypoints, or a .csv (README)")
    add("--images", type=Path, required=True, help="folder of the images")
    add("--split", choices=tuple(PAPER), required=True, help="whose rules of selection")
    add("--output", type=Path, required=True, help="the .json to write")
    add("--refs", type=Path, nargs="+", default=[], metavar="FOLDER",
        help="refcoco, refcoco+, refcocog, or refs files in them")  # fmt: skip
    add("--ref_splits", nargs="+", metavar="NAME", help="splits of --refs to take; default: all")
    add("--captions", type=Path, metavar="FILE", help=".csv or .json of annotation id, caption")
    add("--exclude", type=Path, nargs="+", metavar="FILE",
        help="annotations whose images stay out; default for train: val beside")  # fmt: skip
    add("--everybody", action="store_true", help="no selection")
    add("--surrounding", type=int, metavar="N", help="other people in the image, at least")
    add("--keypoints", type=int, metavar="N", help="labelled keypoints, at least")
    add("--area", type=float, metavar="SHARE", help="of the image's area, at least")
    add("--keep_without_text", action="store_true", help="also who has no text, for positions")
    add("--box_masks", action="store_true", help="the box as mask for who has none")
    add("--skeleton", default="coco", help=f"of datasets/skeleton.py: {', '.join(SKELETONS)} ...")
    add("--seed", type=int, default=0, help="of the scribbles")
    # About 0.4 GB each, most of it libraries.
    workers = min(os.cpu_count() or 1, 8)
    add("--workers", type=int, default=workers, help="processes; default: all cores, at most 8")
    return parser


def main() -> int:
    """Command line."""
    arguments = build_parser().parse_args()
    return run_program(lambda: build(arguments))


if __name__ == "__main__":
    sys.exit(main())
