"""Find every defect of a RefHuman file, or of one of COCO's person keypoints, and of its images.

    python tools/check_refhuman.py RefHuman_train.json --images images --json defects.json
    python tools/check_refhuman.py RefHuman_train.json --images images --fix RefHuman_clean.json

Which form the file has is seen by its content. All that loading asks for is checked, and beside it
that all parts of an annotation are of one person, that a sentence means one person of its image,
and that every image can be read. Ends with status 0 where nothing is found, 1 where something is,
and 2 where the file cannot be checked. `--fix` writes a copy without the entries that have defects.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
from checking.content import COCO_KEYPOINTS, ContentCheck
from checking.defects import KINDS, Defect
from checking.shapes import FileTask, check_files, file_tasks
from tqdm import tqdm

from datasets.annotations import read_annotation_file
from datasets.coco import CocoKeypoints
from datasets.refhuman import RefHuman
from datasets.skeleton import SKELETONS, Skeleton
from datasets.transforms import keep_size
from util.command_line import output_file, require_range, run_program
from util.errors import MissingFileError, UserError
from util.files import written_whole
from util.logging import write_json

_SHOWN_IDS = 10


def run_tasks(tasks: Sequence[list[FileTask]], workers: int) -> Iterator[tuple[int, list[Defect]]]:
    """`check_files` of all tasks, in order, in several processes."""
    with contextlib.ExitStack() as stack:
        if min(workers, len(tasks)) > 1:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(
                context.Pool(min(workers, len(tasks)), _leave_interruption_to_parent)
            )
            yield from pool.imap(check_files, tasks)
        else:
            yield from map(check_files, tasks)


def _leave_interruption_to_parent() -> None:
    """Ctrl-C reaches all processes; the parent ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def check(
    content: Any, source: str, images: Path, skeleton: Skeleton, workers: int
) -> tuple[ContentCheck, list[Defect]]:
    """Find all defects.

    Args:
        content: the parsed JSON.
        source: its name, for messages.
        images: folder of the images.
        skeleton: keypoint definition.
        workers: processes that draw masks and open images.

    Returns:
        The check of the entries, and all defects: those of the file's entries, then of shapes and
        images, both in the file's order.

    Raises:
        UserError: it is no annotation file at all.
    """
    checked = ContentCheck(content, source, skeleton)
    checked.run()
    defects = list(checked.findings.defects)
    tasks = file_tasks(checked, images)
    with tqdm(total=sum(map(len, tasks)), unit="image", disable=None) as progress:
        for count, found in run_tasks(tasks, workers):
            defects += found
            progress.update(count)
    return checked, defects


def by_kind(defects: Iterable[Defect]) -> dict[str, list[Defect]]:
    """The defects of every kind that there is, in the order of `KINDS`."""
    found: dict[str, list[Defect]] = {kind: [] for kind in KINDS}
    for defect in defects:
        found[defect.kind].append(defect)
    return {kind: of_kind for kind, of_kind in found.items() if of_kind}


def render(checked: ContentCheck, defects: Sequence[Defect]) -> str:
    """The report as text: kinds with counts, first ids, and the first message of each."""
    content = checked.content
    lines = [
        f"{checked.source}: {checked.form}, {len(content['images'])} image entries, "
        f"{len(content['annotations'])} annotations"
    ]
    if checked.form != COCO_KEYPOINTS:
        lines.append(f"  prompts that it has what is needed for: {', '.join(checked.prompts)}")
    for kind, found in by_kind(defects).items():
        lines.append(f"{kind}: {len(found)} ({KINDS[kind]})")
        for name in ("image_id", "annotation_id"):
            ids = dict.fromkeys(getattr(defect, name) for defect in found)
            ids.pop(None, None)
            if ids:
                more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
                shown = ", ".join(map(str, list(ids)[:_SHOWN_IDS]))
                lines.append(f"  {name.replace('_', ' ')}s {shown}{more}")
        lines.append(f"  {found[0].message}")
    lines.append(f"{len(defects)} defects" if defects else "No defects.")
    return "\n".join(lines)


def without(content: dict[str, Any], defects: Iterable[Defect], form: str) -> dict[str, Any]:
    """The content without the entries that have defects, and without those that need them.

    A pair of RefHuman goes as a whole; of COCO an annotation goes alone, an image with all of its
    annotations.
    """
    spoilt: dict[str, set[int]] = {"images": set(), "annotations": set(), "people": set()}
    for defect in defects:
        for name, number in defect.places:
            spoilt[name].add(number)
    lost_ids = {
        entry["id"]
        for number, entry in enumerate(content["images"])
        if number in spoilt["images"] and isinstance(entry, dict) and _is_id(entry.get("id"))
    }
    if form != COCO_KEYPOINTS:
        spoilt_annotations = [content["annotations"][n] for n in spoilt["annotations"]]
        lost_ids |= {
            annotation["image_id"]
            for annotation in spoilt_annotations
            if isinstance(annotation, dict) and _is_id(annotation.get("image_id"))
        }
        spoilt["images"] |= {
            number
            for number, entry in enumerate(content["images"])
            if isinstance(entry, dict) and _is_id(entry.get("id")) and entry["id"] in lost_ids
        }
    kept = dict(content)
    for name in ("images", "annotations"):
        kept[name] = [e for number, e in enumerate(content[name]) if number not in spoilt[name]]
    kept["annotations"] = [
        annotation
        for annotation in kept["annotations"]
        if not _is_id(annotation.get("image_id")) or annotation["image_id"] not in lost_ids
    ]
    if isinstance(content.get("people"), list):
        people = enumerate(content["people"])
        kept["people"] = [e for number, e in people if number not in spoilt["people"]]
    elif spoilt["people"]:
        del kept["people"]
    return kept


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def cleaned(checked: ContentCheck, defects: Sequence[Defect]) -> dict[str, Any]:
    """The content without defects; see `without`.

    Raises:
        UserError: nothing is left.
    """
    content = checked.content
    while defects:
        content = without(content, defects, checked.form)
        if not content["images"] or not content["annotations"]:
            raise UserError(f"--fix: nothing of {checked.source} is left without a defect.")
        # What was left out may have been what others refer to.
        again = ContentCheck(content, checked.source, checked.skeleton)
        again.run()
        defects = again.findings.defects
    return content


def write_cleaned(checked: ContentCheck, content: dict[str, Any], images: Path, file: Path) -> None:
    """Write a content that loads; a file that does not load never takes its place.

    Raises:
        UserError: it does not load.
    """
    with written_whole(file) as temporary:
        with temporary.open("w", encoding="utf-8") as stream:
            for number, (key, value) in enumerate(content.items()):
                stream.write(f"{', ' if number else '{'}{json.dumps(key)}: ")
                if isinstance(value, list):
                    # Entry by entry: the text of a large file is not held as a whole.
                    for place, entry in enumerate(value):
                        stream.write((", " if place else "[") + json.dumps(entry))
                    stream.write("]" if value else "[]")
                else:
                    stream.write(json.dumps(value))
            stream.write("}\n")
        try:
            if checked.form == COCO_KEYPOINTS:
                CocoKeypoints(
                    images,
                    temporary,
                    keep_size,
                    training=False,
                    with_masks=True,
                    skeleton=checked.skeleton,
                )
            else:
                data = RefHuman(
                    images,
                    temporary,
                    keep_size,
                    training=False,
                    prompts=checked.prompts,
                    skeleton=checked.skeleton,
                )
                data.make_evaluator()
        except UserError as error:
            raise UserError(f"--fix {file}: the copy would not load: {error}") from error


def describe_left_out(checked: ContentCheck, content: dict[str, Any]) -> list[str]:
    """What a cleaned copy lacks, for people."""
    lines = []
    for name, key in (("images", "id"), ("annotations", "id"), ("people", "file_name")):
        before, after = checked.content.get(name), content.get(name)
        if isinstance(before, list) and before:
            kept = {id(entry) for entry in after or []}
            lost = [entry for entry in before if id(entry) not in kept]
            ids = [str(e.get(key)) for e in lost if isinstance(e, dict)]
            more = ", ..." if len(ids) > _SHOWN_IDS else ""
            which = f": {', '.join(ids[:_SHOWN_IDS])}{more}" if ids else ""
            lines.append(f"Left out of '{name}': {len(lost)} of {len(before)}{which}")
    return lines


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="RefHuman file, or COCO's person keypoints")
    parser.add_argument("--images", type=Path, required=True, help="folder of its images")
    parser.add_argument("--json", type=Path, help="write all defects into this file")
    parser.add_argument("--fix", type=Path, help="write a copy without defects into this file")
    parser.add_argument(
        "--skeleton", choices=sorted(SKELETONS), default="coco", help="keypoint definition"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    return parser


def main() -> int:
    """Command line; returns 1 where there are defects."""
    arguments = build_parser().parse_args()
    defects: list[Defect] = []

    def run() -> None:
        require_range(1, 1000, workers=arguments.workers)
        if not arguments.file.is_file():
            raise MissingFileError(f"{arguments.file} does not exist; give an annotation file.")
        if not arguments.images.is_dir():
            raise MissingFileError(
                f"--images {arguments.images} is no folder; give the one that holds the images."
            )
        for option in ("json", "fix"):
            if getattr(arguments, option):
                inputs = [arguments.file]
                output_file(getattr(arguments, option), f"--{option}", (".json",), inputs)
        if arguments.json and arguments.json == arguments.fix:
            raise UserError("--json and --fix name the same file; name two files.")
        content = read_annotation_file(arguments.file, "the images")
        checked, found = check(
            content,
            str(arguments.file),
            arguments.images,
            SKELETONS[arguments.skeleton],
            arguments.workers,
        )
        defects.extend(found)
        print(render(checked, found))
        report: dict[str, Any] = {
            "file": str(arguments.file),
            "form": checked.form,
            "counts": dict(Counter(defect.kind for defect in found)),
            "defects": [defect.as_record() for defect in found],
        }
        if arguments.fix:
            copy = cleaned(checked, found)
            write_cleaned(checked, copy, arguments.images, arguments.fix)
            report["left_out"] = describe_left_out(checked, copy)
            print("\n".join([*report["left_out"], str(arguments.fix)]))
        if arguments.json:
            write_json(arguments.json, report)

    return run_program(run) or int(bool(defects))


if __name__ == "__main__":
    sys.exit(main())
