"""tools/make_synthetic.py: folders that are complete, resumed, or refused."""

from __future__ import annotations

import json
import sys

import make_synthetic
import pytest

from datasets.refhuman import RefHuman
from datasets.synthetic import SceneGenerator, people_entries, scene_pairs
from datasets.transforms import EvaluationTransform
from util.command_line import run_program
from util.errors import UserError


def test_make_synthetic_writes_resumes_and_refuses(tmp_path):
    settings = dict(
        train=6,
        val=3,
        seed=1,
        image_size=[[96, 96], [96, 96]],
        num_people=[1, 3],
        difficulty=0.5,
        captions=2,
        format="png",
    )
    folder = tmp_path / "synthetic"
    make_synthetic.make(folder, settings, workers=2)
    data = RefHuman(
        folder / "images", folder / "RefHuman_train.json", EvaluationTransform(96), training=True
    )
    assert len(data) >= 6 and data[0].image.shape[0] == 3
    assert sorted(p.name for p in folder.iterdir()) == [
        "RefHuman_train.json",
        "RefHuman_val.json",
        "images",
    ]
    assert len(list((folder / "images").iterdir())) == 9
    assert data.ground_truth()["people"]

    # The file is what encoding its content as a whole would give; ids count the pairs.
    written = (folder / "RefHuman_train.json").read_text()
    content = json.loads(written)
    assert json.dumps(content, separators=(",", ":")) == written
    ids = list(range(1, len(data) + 1))
    assert [entry["id"] for entry in content["images"]] == ids
    assert [record["id"] for record in content["annotations"]] == ids
    assert [record["image_id"] for record in content["annotations"]] == ids
    name = content["images"][0]["file_name"]
    generator = SceneGenerator(1, image_size=(96, 96), num_people=(1, 3), difficulty=0.5)
    scene, pairs = scene_pairs(generator, 0, name, 2)
    assert content["images"][: len(pairs)] == [entry for entry, _ in pairs]
    assert content["annotations"][: len(pairs)] == [record for _, record in pairs]
    assert content["people"][: len(scene.people)] == people_entries(scene, name)

    # A run that was stopped: one part written, an image of the next missing.
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    other = tmp_path / "stopped"
    assert not make_synthetic.prepare_folder(other, settings)
    make_synthetic.write_part((other, "train", 0, 6, settings))
    with pytest.raises(UserError, match="difficulty: there 0.5, asked for 0.9"):
        make_synthetic.make(other, {**settings, "difficulty": 0.9}, workers=1)
    stamp = (other / "images" / "train_00000000.png").stat().st_mtime_ns
    make_synthetic.make(other, settings, workers=1)
    assert {p.name: p.read_bytes() for p in other.iterdir() if p.is_file()} == before
    assert (other / "images" / "train_00000000.png").stat().st_mtime_ns == stamp

    # Complete: nothing to do with the same settings, refused with others.
    assert make_synthetic.prepare_folder(folder, settings)
    with pytest.raises(UserError, match="another data set"):
        make_synthetic.prepare_folder(folder, {**settings, "seed": 2})


def test_make_synthetic_reports_bad_input(tmp_path, monkeypatch, capsys):
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["make_synthetic.py", *arguments])
        assert run_program(make_synthetic.main) == 2
        return capsys.readouterr().err

    (tmp_path / "mine").write_text("something of the user's")
    counts = ("--train", "1", "--val", "1")
    assert "is not empty" in run("--output", str(tmp_path), *counts)
    new = tmp_path / "new"
    assert "difficulty" in run("--output", str(new), *counts, "--difficulty", "3")
    assert "--val" in run("--output", str(new), "--train", "1", "--val", "0")
    assert not new.exists()
