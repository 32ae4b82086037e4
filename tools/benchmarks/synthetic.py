"""Synthetic images in the default scene: 192 pixels, one to six people, difficulty 1.

- pair: an image with all its people, and one of them with caption, mask and scribbles;
- sample: the same as a finished sample of training, without augmentation;
- two samples: of every image, as the tiny model's training reads them;
- writing: what `tools/make_synthetic.py` does for a part: images as JPEG files, up to three
  captions for everybody who can be referred to, annotations as JSON.

One process draws, with one thread of OpenCV.  Every round draws the same images.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNIT = "image"
DEFAULTS: dict[str, Any] = {"images": 100, "size": 192, "form": "pair"}
VARIANTS: dict[str, dict[str, Any]] = {
    "pair": {},
    "sample": {"form": "sample"},
    "two samples": {"form": "two samples"},
    "writing": {"form": "writing"},
}
OLDER = tuple(VARIANTS)


def prepare(options: dict[str, Any]) -> Callable[[], int]:
    """A round is `images` scenes, made into what `form` says."""
    import cv2

    cv2.setNumThreads(1)
    if options["form"] == "writing":
        return _writing(options)
    from datasets.synthetic import SyntheticRefHuman
    from datasets.transforms import keep_size

    count = options["images"]
    turns = 2 if options["form"] == "two samples" else 1
    settings = {"training": True, "length": turns * count, "image_size": (options["size"],) * 2}
    try:
        dataset = SyntheticRefHuman(keep_size, prompts_per_image=turns, **settings)
    except TypeError:  # the name at 647b47f
        dataset = SyntheticRefHuman(keep_size, prompts_per_picture=turns, **settings)
    read = dataset.load_pair if options["form"] == "pair" else dataset.__getitem__

    def draw() -> int:
        for index in range(turns * count):
            read(index)
        return count

    return draw


def _writing(options: dict[str, Any]) -> Callable[[], int]:
    import datasets

    # The program of the measured checkout, not the one beside this file.
    sys.path.insert(0, str(Path(datasets.__file__).resolve().parents[1] / "tools"))
    import make_synthetic

    count, side = options["images"], [options["size"]] * 2
    settings = {
        "seed": 0,
        "image_size": [side, side],
        "num_people": [1, 6],
        "difficulty": 1.0,
        "captions": 3,
        "format": "jpg",
    }

    def write() -> int:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "images").mkdir()
            (folder / "parts").mkdir()
            make_synthetic.write_part((folder, "train", 0, count, settings))
        return count

    return write
