"""tools/dataset_stats.py: figures that were counted by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import dataset_stats
import pytest
from conftest import write_coco, write_refhuman
from PIL import Image


def run(monkeypatch, file: Path, output: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["dataset_stats.py", str(file), "--output", str(output)])
    return dataset_stats.main()


def statistics(monkeypatch, file: Path, output: Path) -> dict[str, Any]:
    assert run(monkeypatch, file, output) == 0
    with Image.open(output / "statistics.png") as page:
        page.load()
        assert page.format == "PNG" and min(page.size) > 400
    return json.loads((output / "statistics.json").read_text())


def change_refhuman(content: dict[str, Any], split: str) -> None:
    """Five pairs: three sentences about two people of one image, two about one of another."""
    images, annotations = content["images"], content["annotations"]
    del images[5:], annotations[5:]
    for number, (of_pair, name, caption) in enumerate(
        [
            (0, "train_000.jpg", "The man, on the left"),
            (0, "train_000.jpg", "a man's dog"),
            (1, "train_000.jpg", "the übergroße man"),
            (2, "train_001.jpg", "$5 man"),
            (2, "train_001.jpg", "the 1 man"),
        ]
    ):
        shape = {**annotations[of_pair], "id": number + 1, "image_id": number + 1}
        content.setdefault("new", []).append(shape)
        images[number].update(file_name=name, caption=caption)
    content["annotations"] = content.pop("new")
    for annotation in content["annotations"][3:]:
        annotation["keypoints"][2::3] = [1, 1, 0] + [2] * 14
        del annotation["person_id"]
    for annotation in content["annotations"][3:]:
        annotation["area"] = 1.0


def test_refhuman(monkeypatch, tmp_path, capsys):
    folder = write_refhuman(tmp_path / "data", pairs={"train": 6}, change=change_refhuman)
    found = statistics(monkeypatch, folder / "RefHuman_train.json", tmp_path / "output")
    assert "| 2 | 3 | 5 |" in capsys.readouterr().out
    assert found["form"] == "RefHuman" and found["pairs"] == 5
    assert found["table_1"] == {"images": 2, "instances": 3, "expressions": 5}
    distributions = found["distributions"]
    assert distributions["people_per_image"] == {"mean": 1.5, "counts": {"1": 1, "2": 1}}
    assert distributions["visible_keypoints"]["counts"] == {"14": 1, "17": 2}
    assert distributions["labelled_keypoints"]["counts"] == {"16": 1, "17": 2}
    assert distributions["prompts_per_person"]["counts"] == {"1": 1, "2": 2}
    assert distributions["words_per_caption"] == {"mean": 3.2, "counts": {"2": 1, "3": 3, "5": 1}}
    assert distributions["scribbles_per_person"] == {"mean": 5.0, "counts": {"5": 3}}
    # 46.08 x 76.8 / 2 of 128 x 96 pixels are 14 %, one pixel is 0.008 %
    assert distributions["area_share"]["counts"] == [1, 0, 0, 0, 0, 2, 0, 0, 0]
    assert found["different_words"] == 10
    assert list(found["words"].items())[:4] == [("man", 4), ("the", 4), ("1", 1), ("5", 1)]
    assert found["words"]["man's"] == found["words"]["übergroße"] == 1
    assert "people_in_image" not in distributions


def test_the_list_of_everybody(monkeypatch, tmp_path):
    def change(content: dict[str, Any], split: str) -> None:
        content["people"] = [
            {**annotation, "file_name": "train_000.jpg"} for annotation in content["annotations"]
        ]

    folder = write_refhuman(tmp_path / "data", pairs={"train": 4}, change=change)
    found = statistics(monkeypatch, folder / "RefHuman_train.json", tmp_path / "output")
    assert found["distributions"]["people_in_image"]["counts"] == {"0": 1, "4": 1}


def test_coco(monkeypatch, tmp_path):
    """Crowds are nobody, people in the same place two."""

    def change(content: dict[str, Any], split: str) -> None:
        content["annotations"][1]["bbox"] = content["annotations"][0]["bbox"]
        content["annotations"][1]["keypoints"] = content["annotations"][0]["keypoints"]

    write_coco(tmp_path, change=change)
    file = tmp_path / "annotations" / "person_keypoints_val2017.json"
    found = statistics(monkeypatch, file, tmp_path / "output")
    assert found["form"] == "COCO keypoints"
    assert found["table_1"] == {"images": 4, "instances": 6, "expressions": 0}
    distributions = found["distributions"]
    assert distributions["people_per_image"]["counts"] == {"0": 1, "1": 1, "2": 1, "3": 1}
    assert distributions["labelled_keypoints"]["counts"] == {"0": 2, "17": 4}
    assert "prompts_per_person" not in distributions


def test_a_file_with_nobody(monkeypatch, tmp_path):
    write_coco(tmp_path, change=lambda content, split: content.update(annotations=[]))
    file = tmp_path / "annotations" / "person_keypoints_val2017.json"
    found = statistics(monkeypatch, file, tmp_path / "output")
    assert found["table_1"]["instances"] == 0


def test_a_broken_entry_leaves_nothing(monkeypatch, tmp_path, capsys):
    def change(content: dict[str, Any], split: str) -> None:
        content["annotations"][1]["area"] = "large"

    folder = write_refhuman(tmp_path / "data", pairs={"train": 4}, change=change)
    assert run(monkeypatch, folder / "RefHuman_train.json", tmp_path / "output") == 2
    assert "annotation id 2 of image id 2: 'area'" in capsys.readouterr().err
    assert list((tmp_path / "output").iterdir()) == []


@pytest.mark.parametrize(
    ("counter", "shown"),
    [({1: 5, 2: 3}, {1: 5, 2: 3}), ({1: 1000, 2: 3, 9: 1, 50: 1}, {1: 1005})],
)
def test_rare_large_values_share_a_bar(counter, shown):
    assert dataset_stats.shortened(counter)[0] == shown
