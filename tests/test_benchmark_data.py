"""What the benchmark measures of the data: on a small folder in the form of the example data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmarks import data
from conftest import write_coco, write_refhuman

from datasets import skeleton
from util.errors import UserError

ROOT = Path(__file__).parents[1]
SIZES = {
    "train_short_sides": [64],
    "train_max_side": 128,
    "crop_short_sides": [80],
    "crop_range": [60, 90],
    "eval_max_side": 128,
}


def options(folder: Path, variant: str) -> dict:
    common = {"config_file": str(ROOT / "config" / "uniphd.py"), "folder": str(folder)}
    common |= {"settings": SIZES, "device": "cpu", "threads": 0}
    return {**data.DEFAULTS, **data.VARIANTS[variant], **common}


@pytest.fixture
def examples(tmp_path) -> Path:
    """refhuman_mini and coco_mini, whose annotations are of refhuman_mini's images."""

    def rename(content, split):
        for i, image in enumerate(content["images"]):
            image["file_name"] = f"{split}_{i % 2:03d}.jpg"

    write_refhuman(tmp_path / "refhuman_mini")
    write_coco(tmp_path / "coco_mini", change=rename)
    return tmp_path


@pytest.mark.parametrize(
    ("variant", "samples"),
    [("refhuman-train", 6), ("refhuman-val", 5), ("coco-train", 2), ("crowdpose-train", 2),
     ("decoding", 6)],
)  # fmt: skip
def test_a_round_is_an_epoch(examples, variant, samples):
    epoch = data.prepare(options(examples, variant))
    assert [epoch(), epoch()] == [samples, samples]


@pytest.mark.parametrize("variant", data.OLDER)
def test_older_commits_need_not_have_what_came_later(examples, monkeypatch, variant):
    # Later than 647b47f.
    monkeypatch.setitem(sys.modules, "util.errors", None)
    monkeypatch.delattr(skeleton, "CROWDPOSE")
    assert data.prepare(options(examples, variant))() > 0


def test_missing_images_are_told_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"There are no real images to measure with in .*'folder'"):
        data.prepare(options(tmp_path, "refhuman-train"))
    with pytest.raises(UserError, match="refhuman_mini/images and coco_mini/annotations"):
        data.prepare(options(tmp_path, "coco-train"))
