"""Loading of a RefHuman file of Table 1's size: 21,634 images, 50,210 people, 170,017 expressions.

The file is made, of 300 MB, in COCO's and RefHuman's own proportions: polygons of 45 points, five
scribbles. A round makes the data set once: reads the file, checks it, packs it for the workers.

- loading: the captions of a person one after the other, as tools/make_synthetic.py writes them;
- shuffled: in any order, so that no annotation is like the one before;
- worker: a process of a loader reads all pairs; what it needs beside its parent's memory is told.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

UNIT = "load"
DEFAULTS: dict[str, Any] = {
    "images": 21_634,
    "people": 50_210,
    "expressions": 170_017,
    "form": "loading",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "loading": {},
    "shuffled": {"form": "shuffled"},
    "worker": {"form": "worker"},
}
OLDER = ("loading", "shuffled")

_HEIGHT, _WIDTH = 480, 640
_NUM_CORNERS = 45


def prepare(options: dict[str, Any]) -> Callable[[], int]:
    """A round loads the file once, or reads all pairs in another process."""
    from datasets.refhuman import RefHuman
    from datasets.transforms import keep_size

    # Removed with the function that holds it.
    folder = tempfile.TemporaryDirectory()
    write_file(Path(folder.name), options)

    def load() -> RefHuman:
        images = Path(folder.name) / "images"
        return RefHuman(images, Path(folder.name) / "people.json", keep_size, training=True)

    if options["form"] != "worker":
        return lambda: int(len(load()) > 0)
    dataset = load()

    def read() -> int:
        added = bytes_of_worker(dataset)
        # The benchmark's own answers are on stdout.
        print(f"a loader's worker adds {added / 1e6:.1f} MB", file=sys.stderr)
        return 1

    return read


def bytes_of_worker(dataset: Any) -> int:
    """Memory that a forked process has to itself after reading all pairs once."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_read_all, args=(dataset, sender))
    process.start()
    sender.close()
    added = receiver.recv()
    process.join()
    return added


def _read_all(dataset: Any, sender: Any) -> None:
    import gc

    from datasets import begin_worker

    begin_worker(0)
    for index in range(len(dataset)):
        dataset.load_pair(index)
    gc.collect()  # as it happens now and then; it writes to every object that is not frozen
    text = Path("/proc/self/smaps_rollup").read_text()
    kilobytes = re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", text, re.MULTILINE)
    sender.send(1024 * sum(map(int, kilobytes)))


def write_file(folder: Path, options: dict[str, Any]) -> None:
    """Write `people.json` and, empty, its images in `images`."""
    generator = np.random.default_rng(0)
    names = [f"{number:012d}.jpg" for number in range(options["images"])]
    (folder / "images").mkdir()
    for name in names:
        (folder / "images" / name).touch()
    # Everybody has one expression at least.
    people = np.arange(options["people"])
    more = generator.integers(options["people"], size=options["expressions"] - options["people"])
    who = np.sort(np.concatenate((people, more)))
    if options["form"] == "shuffled":
        generator.shuffle(who)
    of_person = [_annotation(generator) for _ in people]
    with (folder / "people.json").open("w") as file:
        file.write('{"images": [')
        for number, person in enumerate(who.tolist(), start=1):
            entry = {
                "id": number,
                "file_name": names[person % len(names)],
                "height": _HEIGHT,
                "width": _WIDTH,
                "caption": f"the person with number {number} in the red coat on the left",
            }
            file.write((", " if number > 1 else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for number, person in enumerate(who.tolist(), start=1):
            file.write(", " if number > 1 else "")
            file.write(f'{{"id": {number}, "image_id": {number}, {of_person[person]}')
        file.write("]}")


def _annotation(generator: np.random.Generator) -> str:
    """A person's JSON behind the ids."""
    width, height = generator.uniform(60, 300, 2).round(2)
    left = round(generator.uniform(0, _WIDTH - width), 2)
    top = round(generator.uniform(0, _HEIGHT - height), 2)
    angles = np.linspace(0, 2 * np.pi, _NUM_CORNERS, endpoint=False)
    circle = 0.5 + 0.5 * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    polygon = circle * (width, height) + (left, top)
    inside = generator.uniform(0.3, 0.7, (77, 2)) * (width, height) + (left, top)
    points = np.rint(inside).astype(int)
    keypoints = np.concatenate((points[:17], np.full((17, 1), 2)), axis=1)
    annotation = {
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [left, top, float(width), float(height)],
        "area": round(float(width * height) * np.pi / 4, 4),
        "segmentation": [polygon.round(2).ravel().tolist()],
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": 17,
        "scribble": points[17:].ravel().tolist(),
        "coco_ann_id": int(generator.integers(10**6)),
    }
    return json.dumps(annotation)[1:]
