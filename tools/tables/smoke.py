"""Smoke runs: a table's configuration at a size that takes seconds, and images to run it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets.annotations import join_annotations, read_annotation_file
from tables.outcomes import ROOT
from util.config import DECLARATIONS, Config
from util.files import link_or_copy
from util.logging import write_json

SMALL = ROOT / "config" / "smoke.py"

# Sizes keep their proportion to the paper's.
_SIZES = ("hidden_dim", "feedforward_dim", "encoder_layers", "decoder_layers", "num_groups")
# What a smoke run sees and how long it learns is its own, whatever a configuration says.
_OWN = (
    *("backbone", "backbone_options", "backbone_drop_path", "pad_divisor", "epochs"),
    *("eval_short_side", "eval_max_side", "train_short_sides", "train_max_side", "augment"),
    *("lr_drop_epochs", "checkpoint_every", "coco_path"),
)
_HIDDEN_STEP = 32  # setting hidden_dim is a multiple of it


def smoke_config(path: Path) -> Config:
    """The configuration of a file at smoke size.

    It has the size of config/smoke.py and, on top, whatever the file changes in config/uniphd.py: a
    setting takes the file's value, a size keeps its proportion to the paper's and changes at least
    by one.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: it breaks the rules of configurations.
    """
    config, paper, small = (Config.fromfile(p, DECLARATIONS) for p in (path, DECLARATIONS, SMALL))
    changes: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        before = paper.to_dict()[name]
        if value == before or name in _OWN:
            continue
        if name in _SIZES:
            changes[name] = _scaled(name, small[name], value, before)
        elif isinstance(value, dict):
            changes |= {
                f"{name}.{key}": inner for key, inner in value.items() if inner != before.get(key)
            }
        else:
            changes[name] = value
    if config.num_results is not None:
        changes["num_results"] = min(
            config.num_results, changes.get("num_groups", small.num_groups)
        )
    small.merge_from_dict(changes)
    small.check()
    return small


def _scaled(name: str, small: int, value: int, before: int) -> int:
    """A size in the proportion value / before, and another one than `small`."""
    step = _HIDDEN_STEP if name == "hidden_dim" else 1
    scaled = max(step, round(small * value / before / step) * step)
    if scaled == small:
        scaled = small + step if value > before else max(step, small - step)
    return scaled


def write_coco(source: Path, output: Path) -> None:
    """Write the people of a synthetic RefHuman folder as COCO's person keypoints.

    Args:
        source: folder that `tools/make_synthetic.py` has written.
        output: takes annotations/ and images/{train,val}2017/; the annotation file of the
            validation images comes last.

    Raises:
        MissingFileError: there is no such folder of files.
        UserError: a file is broken.
    """
    for split in ("train", "val"):
        file = source / f"RefHuman_{split}.json"
        content = read_annotation_file(file, "what tools/make_synthetic.py writes")
        entries: dict[str, dict[str, Any]] = {}
        people: dict[tuple[str, int], dict[str, Any]] = {}
        for entry, of_pair in join_annotations(content, str(file), "RefHuman"):
            entries[entry["file_name"]] = entry
            for annotation in of_pair:
                people[entry["file_name"], annotation["person_id"]] = annotation
        numbers = {name: number for number, name in enumerate(entries, start=1)}
        folder = output / "images" / f"{split}2017"
        for name in numbers:
            link_or_copy(source / "images" / name, folder / name)
        images = [
            {"id": number, "file_name": name, **{k: entries[name][k] for k in ("height", "width")}}
            for name, number in numbers.items()
        ]
        annotations = [
            {**_coco_annotation(annotation), "id": number, "image_id": numbers[name]}
            for number, ((name, _), annotation) in enumerate(people.items(), start=1)
        ]
        write_json(
            output / "annotations" / f"person_keypoints_{split}2017.json",
            {
                "images": images,
                "annotations": annotations,
                "categories": [{"id": 1, "name": "person"}],
            },
            indent=None,
        )


def _coco_annotation(annotation: dict[str, Any]) -> dict[str, Any]:
    keys = ("bbox", "area", "segmentation", "keypoints")
    labelled = sum(visibility > 0 for visibility in annotation["keypoints"][2::3])
    kept = {key: annotation[key] for key in keys}
    return {**kept, "category_id": 1, "iscrowd": 0, "num_keypoints": labelled}
