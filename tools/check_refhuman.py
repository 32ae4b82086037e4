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
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
from checking.cleaning import write_cleaned
from checking.content import ContentCheck
from checking.defects import KINDS, Defect
from checking.reading import COCO_KEYPOINTS, AnnotationFile
from checking.shapes import check_part, file_tasks, shape_tasks
from tqdm import tqdm

from datasets.skeleton import SKELETONS, Skeleton
from util.command_line import output_file, require_range, run_program
from util.errors import MissingFileError, UserError
from util.logging import write_json
from util.processes import in_order

_SHOWN_IDS = 10


def check(
    file: Path, images: Path, skeleton: Skeleton, workers: int
) -> tuple[ContentCheck, list[Defect]]:
    """Find all defects. Neither file nor images are held, but what tells entries apart.

    Args:
        file: the annotation file.
        images: folder of the images.
        skeleton: keypoint definition.
        workers: processes that draw masks and open images.

    Returns:
        The check of the entries, and all defects: those of the file's entries, then of shapes, then
        of images, all in the file's order.

    Raises:
        UserError: it is no annotation file at all.
    """
    checked = ContentCheck(AnnotationFile(file), skeleton)
    checked.read_images()
    clean: set[bytes] = set()
    defects: list[Defect] = []
    for name, tasks, total in (
        ("people", shape_tasks(checked, clean), None),
        ("images", file_tasks(checked, images), len(checked.by_file)),
    ):
        with (
            tqdm(desc=name, total=total, unit="", disable=None) as progress,
            closing(in_order(check_part, tasks, workers)) as results,
        ):
            for result in results:
                defects += result.defects
                clean |= result.clean
                progress.update(result.count)
    return checked, [*checked.findings.defects, *defects]


def by_kind(defects: Iterable[Defect]) -> dict[str, list[Defect]]:
    """The defects of every kind that there is, in the order of `KINDS`."""
    found: dict[str, list[Defect]] = {kind: [] for kind in KINDS}
    for defect in defects:
        found[defect.kind].append(defect)
    return {kind: of_kind for kind, of_kind in found.items() if of_kind}


def render(checked: ContentCheck, defects: Sequence[Defect]) -> str:
    """The report as text: kinds with counts, first ids, and the first message of each."""
    lines = [
        f"{checked.source}: {checked.file.form}, {checked.counts['images']} image entries, "
        f"{checked.counts['annotations']} annotations"
    ]
    if checked.file.form != COCO_KEYPOINTS:
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
        checked, found = check(
            arguments.file, arguments.images, SKELETONS[arguments.skeleton], arguments.workers
        )
        defects.extend(found)
        print(render(checked, found))
        report: dict[str, Any] = {
            "file": str(arguments.file),
            "form": checked.file.form,
            "counts": dict(Counter(defect.kind for defect in found)),
            "defects": [defect.as_record() for defect in found],
        }
        if arguments.fix:
            report["left_out"] = write_cleaned(checked, found, arguments.fix)
            print("\n".join([*report["left_out"], str(arguments.fix)]))
        if arguments.json:
            write_json(arguments.json, report)

    return run_program(run) or int(bool(defects))


if __name__ == "__main__":
    sys.exit(main())
