"""Count what is in a RefHuman file, or in one of COCO's person keypoints, and draw it.

    python tools/dataset_stats.py data/RefHuman/RefHuman_train.json --output outputs/statistics

prints the figures of the paper's Table 1 (images, instances, expressions) and writes
`statistics.png`, a page of distributions, and `statistics.json`, the same as numbers. An instance
is a person who is referred to, in COCO's form everybody but crowd regions; an expression is a
sentence about one.
"""

from __future__ import annotations

import argparse
import bisect
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from checking.reading import COCO_KEYPOINTS, AnnotationFile, ImageEntry, PersonKey
from matplotlib.axes import Axes

from datasets.annotations import (
    check_image_entry,
    check_image_id,
    check_image_reference,
    check_image_size,
)
from datasets.checks import (
    Frame,
    check_area,
    check_box,
    check_keypoints,
    check_text,
    flat_scribbles,
)
from datasets.refhuman import check_single, share_all
from datasets.scribble import NUM_POINTS
from datasets.skeleton import SKELETONS, Skeleton
from util.command_line import output_folder, run_program
from util.errors import MissingFileError
from util.files import written_together, written_whole
from util.logging import write_json

# The page's font shows no other scripts; whole words in any of them are counted.
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_NUM_WORDS = 30
# Shares of the image; the paper's selections are from 1 and 2 % on.
_AREA_EDGES = (0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1)
_NAME = "statistics"


@dataclass
class Statistics:
    """What is counted in a file.

    Attributes:
        form: "RefHuman" or "COCO keypoints".
        images: image files.
        instances: different people.
        expressions: sentences.
        pairs: image entries; a pair of image and prompt each, in RefHuman's form.
        people_per_image: number of people -> image files.
        people_in_image: the same of everybody, where the file lists them (`people`).
        area_shares: number of a step of `_AREA_EDGES` -> people whose share of the image is in it.
        visible_keypoints: number of a person's keypoints with visibility 2 -> people.
        labelled_keypoints: number of a person's keypoints with visibility 1 or 2 -> people.
        words_per_caption: words -> sentences.
        words: word, in small letters -> times.
        prompts_per_person: sentences about a person -> people.
        scribbles_per_person: scribbles -> people.
    """

    form: str
    images: int = 0
    instances: int = 0
    expressions: int = 0
    pairs: int = 0
    people_per_image: Counter[int] = field(default_factory=Counter)
    people_in_image: Counter[int] = field(default_factory=Counter)
    area_shares: Counter[int] = field(default_factory=Counter)
    visible_keypoints: Counter[int] = field(default_factory=Counter)
    labelled_keypoints: Counter[int] = field(default_factory=Counter)
    words_per_caption: Counter[int] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    prompts_per_person: Counter[int] = field(default_factory=Counter)
    scribbles_per_person: Counter[int] = field(default_factory=Counter)

    def as_record(self) -> dict[str, Any]:
        """For a JSON report: Table 1's figures, and every distribution with its mean."""
        table = {name: getattr(self, name) for name in ("images", "instances", "expressions")}
        distributions = {}
        for name in (
            *("people_per_image", "people_in_image", "visible_keypoints", "labelled_keypoints"),
            *("words_per_caption", "prompts_per_person", "scribbles_per_person"),
        ):
            counter = getattr(self, name)
            if counter:
                counts = {str(value): counter[value] for value in sorted(counter)}
                distributions[name] = {"mean": mean(counter), "counts": counts}
        distributions["area_share"] = {
            "edges": list(_AREA_EDGES),
            "counts": [self.area_shares[i] for i in range(len(_AREA_EDGES) - 1)],
        }
        return {
            "form": self.form,
            "table_1": table,
            "pairs": self.pairs,
            "distributions": distributions,
            "different_words": len(self.words),
            "words": dict(self.most_frequent(_NUM_WORDS)),
        }

    def most_frequent(self, count: int) -> list[tuple[str, int]]:
        """Words and times, the most frequent first; equally frequent ones by the alphabet."""
        return sorted(self.words.items(), key=lambda item: (-item[1], item[0]))[:count]


def mean(counter: Mapping[int, int]) -> float:
    """Of values that occur so many times."""
    total = sum(counter.values())
    return round(sum(value * times for value, times in counter.items()) / total, 4)


@dataclass(slots=True)
class Counted:
    """What is kept of a person, until all entries of the image are known.

    Attributes:
        key: tells whether another annotation is of the same person.
        visible, labelled: keypoints of visibility 2, and of visibility 1 or 2.
        area: in pixels.
        scribbles: how many; None: none at all.
    """

    key: PersonKey
    visible: int
    labelled: int
    area: float
    scribbles: int | None


def count(file: AnnotationFile, skeleton: Skeleton) -> Statistics:
    """Count what is in a file.

    Args:
        file: to be read.
        skeleton: keypoint definition.

    Raises:
        UserError: an entry is broken; `tools/check_refhuman.py` finds all that are.
    """
    source, is_pairs = str(file.path), file.form != COCO_KEYPOINTS
    statistics = Statistics(file.form)
    images = read_images(file)
    in_list: Counter[str] | None = None
    by_file: dict[str, list[ImageEntry]] = {}
    for image in images.values():
        by_file.setdefault(image.file_name, []).append(image)
    num_annotations: Counter[int] = Counter()
    last: tuple[dict[str, Any], tuple[int, int], Counted] | None = None
    for key, number, value in file.annotations_and_people():
        if key == "people" and number is None:
            in_list = Counter() if value == [] else None
        elif key == "people":
            name = value.get("file_name") if isinstance(value, dict) else None
            if isinstance(name, str) and name in by_file:
                in_list[by_file[name][0].file_name] += 1
        elif number is not None:
            check_image_reference(value, number, images, source)
            image = images[value["image_id"]]
            num_annotations[image.id] += 1
            if not value.get("iscrowd"):
                size = (image.height, image.width)
                # Captions of one person mostly follow each other.
                if last is None or last[1] != size or not share_all(value, last[0]):
                    last = (value, size, _counted(source, image, value, skeleton))
                image.people.append(last[2])
    statistics.pairs = len(images)
    statistics.images = len(by_file)
    for entries in by_file.values():
        if is_pairs:
            for image in entries:
                check_single(num_annotations[image.id], f"{source}: image id {image.id}")
        _count_image(statistics, entries)
    if in_list is not None:
        statistics.people_in_image.update(in_list[name] for name in by_file)
    return statistics


def read_images(file: AnnotationFile) -> dict[int, ImageEntry]:
    """The image entries by id.

    Raises:
        UserError: one is broken.
    """
    source = str(file.path)
    images: dict[int, ImageEntry] = {}
    sizes: dict[str, tuple[int, int]] = {}
    names: dict[str, str] = {}
    for number, entry in file.images():
        check_image_entry(entry, number, source)
        check_image_id(entry, images, source, file.form)
        check_image_size(entry, sizes, source)
        check_text(entry, "caption", f"{source}: image id {entry['id']}")
        images[entry["id"]] = ImageEntry.of(number, entry, names)
    return images


def _counted(
    source: str, image: ImageEntry, annotation: dict[str, Any], skeleton: Skeleton
) -> Counted:
    frame = Frame.of_annotation(source, image.as_entry(), annotation)
    check_box(annotation, frame, flat_allowed=True)
    check_area(annotation, frame, zero_allowed=True)
    check_keypoints(annotation, frame, skeleton)
    visibilities = annotation["keypoints"][2::3]
    scribbles = None
    if annotation.get("scribble"):
        scribbles = len(flat_scribbles(annotation["scribble"]) or []) // (2 * NUM_POINTS)
    return Counted(
        PersonKey.of(annotation),
        sum(v == 2 for v in visibilities),
        sum(v > 0 for v in visibilities),
        annotation["area"],
        scribbles,
    )


def _count_image(statistics: Statistics, entries: Sequence[ImageEntry]) -> None:
    """Add an image file with its entries and their people."""
    people: list[tuple[Counted, list[str]]] = []
    is_pairs = statistics.form != COCO_KEYPOINTS
    for image in entries:
        for person in image.people:
            known = (c for other, c in people if is_pairs and other.key.is_same(person.key))
            captions = next(known, None)
            if captions is None:
                captions = []
                people.append((person, captions))
                _count_person(statistics, person, image.height * image.width)
            if (image.caption or "").strip():
                captions.append(image.caption)
    statistics.instances += len(people)
    statistics.people_per_image[len(people)] += 1
    for _, captions in people:
        statistics.expressions += len(captions)
        if is_pairs:
            statistics.prompts_per_person[len(captions)] += 1
        for caption in captions:
            words = _WORD.findall(caption.lower())
            statistics.words_per_caption[len(words)] += 1
            statistics.words.update(words)


def _count_person(statistics: Statistics, person: Counted, pixels: int) -> None:
    """Add what is counted once per person, in an image of so many pixels."""
    statistics.visible_keypoints[person.visible] += 1
    statistics.labelled_keypoints[person.labelled] += 1
    step = bisect.bisect_right(_AREA_EDGES, person.area / pixels) - 1
    statistics.area_shares[min(step, len(_AREA_EDGES) - 2)] += 1
    if person.scribbles is not None:
        statistics.scribbles_per_person[person.scribbles] += 1


# --- the page ------------------------------------------------------------------------------------


def draw_page(statistics: Statistics, title: str, output: Path) -> None:
    """Draw all distributions on one page, a PNG file."""
    panels = [
        partial(draw_counts, counter=statistics.people_per_image, title="people per image",
                of="images"),
        partial(draw_areas, counter=statistics.area_shares),
        partial(draw_keypoints, statistics=statistics),
    ]  # fmt: skip
    if statistics.people_in_image:
        panels[0] = partial(draw_people, statistics=statistics)
    if statistics.words:
        panels += [
            partial(draw_counts, counter=statistics.words_per_caption, title="words per sentence",
                    of="sentences"),
            partial(draw_counts, counter=statistics.prompts_per_person,
                    title="sentences per person", of="people"),
            partial(draw_words, words=statistics.most_frequent(_NUM_WORDS)),
        ]  # fmt: skip
    rows = -(-len(panels) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(15, 4.6 * rows), layout="constrained")
    for axis, panel in zip(axes.flat, panels, strict=True):
        panel(axis)
    figure.suptitle(
        f"{title} ({statistics.form}): {statistics.images:,} images, "
        f"{statistics.instances:,} instances, {statistics.expressions:,} expressions"
    )
    with written_whole(output) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def draw_counts(axis: Axes, counter: Mapping[int, int], title: str, of: str) -> None:
    """Bars: how often a number occurs; beyond the 99.5th percentile they share the last one."""
    shown, last = shortened(counter)
    axis.bar(list(shown), list(shown.values()), width=0.85)
    label = f"last bar: {last} and more" if last in shown and last < max(counter) else ""
    axis.set_xlabel(label)
    axis.set_ylabel(of)
    axis.set_title(f"{title} (mean {mean(counter):.2f})")
    axis.xaxis.get_major_locator().set_params(integer=True)


def shortened(counter: Mapping[int, int]) -> tuple[dict[int, int], int]:
    """Counts whose rare, largest values share the last one; and that value."""
    total, seen, last = sum(counter.values()), 0, max(counter)
    for value in sorted(counter):
        seen += counter[value]
        if seen >= 0.995 * total:
            last = value
            break
    shown: dict[int, int] = {}
    for value in sorted(counter):
        shown[min(value, last)] = shown.get(min(value, last), 0) + counter[value]
    return shown, last


def draw_people(axis: Axes, statistics: Statistics) -> None:
    """People who are referred to, and everybody, per image."""
    for counter, name, offset in (
        (statistics.people_per_image, "referred to", -0.2),
        (statistics.people_in_image, "everybody", 0.2),
    ):
        shown, _ = shortened(counter)
        label = f"{name} (mean {mean(counter):.2f})"
        axis.bar([value + offset for value in shown], list(shown.values()), 0.4, label=label)
    axis.set_ylabel("images")
    axis.set_title("people per image")
    axis.legend()
    axis.margins(y=0.2)  # room for the legend
    axis.xaxis.get_major_locator().set_params(integer=True)


def draw_areas(axis: Axes, counter: Mapping[int, int]) -> None:
    """Bars: people by their share of the image."""
    names = [
        f"{100 * low:g}–{100 * high:g}"
        for low, high in zip(_AREA_EDGES, _AREA_EDGES[1:], strict=False)
    ]
    axis.bar(names, [counter.get(i, 0) for i in range(len(names))], width=0.9)
    axis.tick_params("x", labelsize=8)
    axis.set_xlabel("% of the image")
    axis.set_ylabel("people")
    axis.set_title("area of the mask")


def draw_keypoints(axis: Axes, statistics: Statistics) -> None:
    """Bars: people by their visible and their labelled keypoints."""
    for counter, name, offset in (
        (statistics.visible_keypoints, "visible", -0.2),
        (statistics.labelled_keypoints, "labelled", 0.2),
    ):
        if counter:
            label = f"{name} (mean {mean(counter):.1f})"
            axis.bar([v + offset for v in counter], list(counter.values()), 0.4, label=label)
            axis.legend()
    axis.margins(y=0.2)  # room for the legend
    axis.set_ylabel("people")
    axis.set_title("keypoints per person")
    axis.xaxis.get_major_locator().set_params(integer=True)


def draw_words(axis: Axes, words: Sequence[tuple[str, int]]) -> None:
    """Bars: the most frequent words, the first on top."""
    axis.barh(range(len(words)), [times for _, times in words])
    # A dollar sign would begin a formula.
    names = [word.replace("$", r"\$") for word, _ in words]
    axis.set_yticks(range(len(words)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("times")
    axis.set_title("most frequent words")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="RefHuman file, or COCO's person keypoints")
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--skeleton", choices=sorted(SKELETONS), default="coco", help="keypoint definition"
    )
    arguments = parser.parse_args()

    def run() -> None:
        if not arguments.file.is_file():
            raise MissingFileError(f"{arguments.file} does not exist; give an annotation file.")
        folder = output_folder(arguments.output, "--output")
        statistics = count(AnnotationFile(arguments.file), SKELETONS[arguments.skeleton])
        record = {"file": str(arguments.file), **statistics.as_record()}
        with written_together(folder) as unfinished:
            draw_page(statistics, arguments.file.name, unfinished / f"{_NAME}.png")
            write_json(unfinished / f"{_NAME}.json", record)
        print("| images | instances | expressions |\n|---|---|---|")
        print(f"| {statistics.images:,} | {statistics.instances:,} | {statistics.expressions:,} |")
        for name, distribution in record["distributions"].items():
            if "mean" in distribution:
                print(f"{name}: mean {distribution['mean']}")
        print(folder / f"{_NAME}.png")

    return run_program(run)


if __name__ == "__main__":
    sys.exit(main())
