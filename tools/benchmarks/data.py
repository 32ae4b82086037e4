"""Reading of training and evaluation data: real images, the configuration's augmentation, batches.

A round is an epoch of the loader, and its batches normalised.  The images are those of a folder
with the example data of RefHuman and COCO (`folder`); CrowdPose's form is made from COCO's:

    python tools/benchmark.py --what data --threads 1 --against 647b47f
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNIT = "sample"
FLOOR = "decoding"
DEFAULTS: dict[str, Any] = {
    "config_file": "config/uniphd.py",
    # Holds refhuman_mini/ and coco_mini/.
    "folder": str(Path(__file__).resolve().parents[3] / "shared" / "data"),
    "dataset": "refhuman",
    "split": "train",
    "workers": 0,
    # "samples"; "bytes": as the loader yields them, not normalised, which is the model's device's
    # work; "decoding": the images alone, each once per sample.
    "form": "samples",
    "own_settings": {},
    "settings": {},
}
_SMALL = {
    "train_short_sides": [96, 128],
    "train_max_side": 160,
    "crop_short_sides": [128, 160],
    "crop_range": [96, 150],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "refhuman-train": {},
    "refhuman-train-bytes": {"form": "bytes"},
    "refhuman-val": {"split": "val"},
    "coco-train": {"dataset": "coco"},
    "crowdpose-train": {"dataset": "crowdpose", "own_settings": {"skeleton": "crowdpose"}},
    "decoding": {"form": "decoding"},
    "refhuman-train-one-worker": {"workers": 1},
    # At 160 pixels JPEGs can be decoded at a fraction of their size.
    "refhuman-train-small": {"own_settings": _SMALL},
    "refhuman-train-small-whole": {"own_settings": {**_SMALL, "draft_decoding": False}},
}
_NEEDED = ("refhuman_mini/images", "coco_mini/annotations")
OLDER = ("refhuman-train", "refhuman-val", "refhuman-train-one-worker", "refhuman-train-small")


class Epoch:
    """One epoch of a loader, or of decoding alone; the same one every time.

    Args:
        options: as above.

    Raises:
        UserError: the example data is not there.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        import cv2

        from datasets import build_dataset, build_loader
        from util.config import Config

        folder = Path(options["folder"])
        if not all((folder / name).is_dir() for name in _NEEDED):
            from util.errors import UserError  # older commits do not have it

            raise UserError(
                f"There are no real images to measure with in {folder}: give the folder that holds "
                f"{' and '.join(_NEEDED)} as option 'folder'."
            )
        if options["threads"]:
            cv2.setNumThreads(options["threads"])
        # Removed with this object; the images are read through it.
        self._layout = tempfile.TemporaryDirectory()
        _lay_out(folder, Path(self._layout.name), options["dataset"])
        cfg = Config.fromfile(options["config_file"])
        cfg.merge_from_dict(
            {
                **options["settings"],
                **options["own_settings"],
                "dataset": options["dataset"],
                "coco_path": str(Path(self._layout.name) / options["dataset"]),
                "num_workers": options["workers"],
            }
        )
        self._dataset = build_dataset(cfg, options["split"])
        self._loader = None
        if options["form"] != "decoding":
            self._loader = build_loader(cfg, self._dataset)
        self._finish = _normalization() if options["form"] == "samples" else lambda batch: batch

    def __call__(self) -> int:
        """Read; returns the number of samples."""
        if self._loader is not None:
            number = 0
            for images, targets in self._loader:
                self._finish(images)
                number += len(targets)
            return number
        for index in range(len(self._dataset)):
            image, _, _ = self._dataset.load_pair(index)
            image.pixels()
        return len(self._dataset)


def prepare(options: dict[str, Any]) -> Callable[[], int]:
    """A round is an epoch of the data set; see `Epoch`."""
    return Epoch(options)


def _normalization() -> Callable[[Any], Any]:
    """What the engine does first with a batch."""
    try:
        from util.normalization import normalize_batch
    except ImportError:  # older commits' batches are normalised
        return lambda batch: batch
    return normalize_batch


def _lay_out(source: Path, target: Path, dataset: str) -> None:
    """Make the folder that `dataset` expects below `target`: refhuman, coco or crowdpose."""
    images = (source / "refhuman_mini" / "images").resolve()
    annotations = (source / "coco_mini" / "annotations").resolve()
    folder = target / dataset
    if dataset == "refhuman":
        folder.symlink_to((source / "refhuman_mini").resolve())
        return
    folder.mkdir()
    if dataset == "coco":
        (folder / "annotations").symlink_to(annotations)
        (folder / "images").mkdir()
        for split in ("train", "val"):
            (folder / "images" / f"{split}2017").symlink_to(images)
        return
    (folder / "images").symlink_to(images)
    (folder / "json").mkdir()
    for split, name in (("train", "trainval"), ("val", "test")):
        content = json.loads((annotations / f"person_keypoints_{split}2017.json").read_text())
        file = folder / "json" / f"crowdpose_{name}.json"
        file.write_text(json.dumps(_as_crowdpose(content)))


def _as_crowdpose(content: dict[str, Any]) -> dict[str, Any]:
    """COCO's annotations in CrowdPose's form; what COCO does not have is unlabelled."""
    from datasets.skeleton import COCO, CROWDPOSE

    def keypoints(values: list[float]) -> list[float]:
        places = dict(zip(COCO.names, range(0, len(values), 3), strict=True))
        found = ([0, 0, 0] if n not in places else values[places[n] : places[n] + 3] for n in
                 CROWDPOSE.names)  # fmt: skip
        return [value for point in found for value in point]

    return {
        **content,
        "images": [{**image, "crowdIndex": 0.5} for image in content["images"]],
        "annotations": [
            {**annotation, "keypoints": keypoints(annotation["keypoints"])}
            for annotation in content["annotations"]
            if not annotation["iscrowd"]
        ],
    }
