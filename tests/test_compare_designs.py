"""Designs against each other: which runs there are, what is made of their figures."""

from __future__ import annotations

import json

import compare_designs
import pytest
from compare_designs import BASE, DESIGNS, METRICS, folder_of, markdown, read_runs, summarize
from test_tables import write_training

from util.config import DECLARATIONS, Config
from util.errors import UserError

CONFIG = "config/designs.py"


def figures(value):
    return {"scribble": dict.fromkeys(METRICS, value)}


@pytest.fixture
def folders(tmp_path):
    """Two finished runs each of two designs."""
    values = {(BASE, 0): 0.4, (BASE, 1): 0.6, ("5 groups", 0): 0.3, ("5 groups", 1): 0.3}
    found = {}
    for (design, seed), value in values.items():
        found[design, seed] = write_training(
            folder_of(tmp_path, design, seed),
            CONFIG,
            metrics=figures(value),
            seed=seed,
            **DESIGNS[design],
        )
    return found


def test_means_spreads_and_how_many_seeds_would_tell_designs_apart(folders):
    summary = summarize(read_runs(folders, "scribble"))
    base, five = summary[BASE]["mask_ap"], summary["5 groups"]["mask_ap"]
    assert base["runs"] == pytest.approx({"0": 40.0, "1": 60.0})
    assert base["mean"] == pytest.approx(50) and five["mean"] == pytest.approx(30)
    assert base["deviation"] == pytest.approx(200**0.5) and five["deviation"] == 0
    assert five["difference"] == pytest.approx(-20)
    assert five["error"] == pytest.approx(10)  # sqrt((200 + 0) / 2)
    assert five["seeds_needed"] == 4  # 200 * (2.8 / 20)^2 = 3.92
    assert "difference" not in base
    text = markdown(summary, "scribble")
    assert "| 5 groups | 30.0 ± 0.0 (30.0, 30.0) | -20.0 ± 10.0 | 4 |" in text
    assert text.splitlines()[4].startswith(f"| {BASE} | 50.0 ± 14.1 (40.0, 60.0) |  |  |")


def test_a_single_seed_has_no_spread_and_tells_nothing_apart(folders):
    summary = summarize(read_runs({k: f for k, f in folders.items() if k[1] == 0}, "scribble"))
    entry = summary["5 groups"]["keypoint_ap"]
    assert entry["deviation"] is entry["error"] is entry["seeds_needed"] is None
    assert "| 30.0 (30.0) | -10.0 |  |" in markdown(summary, "scribble")


def test_runs_of_different_tasks_are_not_compared(folders, tmp_path):
    other = write_training(tmp_path / "other", CONFIG, metrics=figures(0.5), batch_size=8)
    with pytest.raises(UserError, match="other was trained with another batch_size"):
        read_runs({**folders, ("10 groups", 0): other}, "scribble")


def test_unfinished_runs_give_no_figure(folders, tmp_path):
    half = write_training(tmp_path / "half", CONFIG, done=1)
    with pytest.raises(UserError, match=r"half: 1 of \d+ epochs done"):
        read_runs({**folders, ("10 groups", 0): half}, "scribble")
    with pytest.raises(UserError, match="was not evaluated with 'point'"):
        read_runs(folders, "point")


@pytest.mark.parametrize("design", DESIGNS)
def test_a_design_changes_what_it_names(design):
    cfg = Config.fromfile(CONFIG, base=DECLARATIONS)
    before = cfg.to_dict()
    cfg.merge_from_dict(DESIGNS[design])
    cfg.check()
    assert {key for key, value in cfg.to_dict().items() if before[key] != value} == set(
        DESIGNS[design]
    )


def test_from_trainings_to_the_table(tmp_path, monkeypatch, capsys):
    """Two designs of the tiniest size, trained, not trained again, and compared."""
    options = [
        *("epochs=1", "batch_size=2", "hidden_dim=32", "num_heads=2", "feedforward_dim=32"),
        *("encoder_layers=1", "decoder_layers=1", "num_workers=0", "lr_drop_epochs=[]"),
        *("synthetic.train_length=2", "synthetic.val_length=2", "synthetic.image_size=[96,96]"),
        *("backbone_options.embed_dim=8", "backbone_options.depths=[1,1,1,1]", "amp=False"),
        *("synthetic.min_area=0.005", "eval_max_side=96"),
    ]
    command = [
        *("compare_designs.py", "--output", str(tmp_path), "--seeds", "0", "--jobs", "2"),
        *("--designs", BASE, "5 groups", "--options", *options),
    ]
    monkeypatch.setattr("sys.argv", command)
    assert compare_designs.main() == 0
    summary = json.loads((tmp_path / "designs.json").read_text())
    assert set(summary) == {BASE, "5 groups"}
    assert (tmp_path / "designs.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "designs.png").stat().st_size > 10_000
    five = Config.fromfile(folder_of(tmp_path, "5 groups", 0) / "config.py")
    assert five.num_groups == 5 and five.seed == 0
    assert compare_designs.main() == 0
    assert "trainings are finished" not in capsys.readouterr().out  # nothing was left to train


def test_a_training_that_fails_is_named(tmp_path, monkeypatch, capsys):
    command = ["compare_designs.py", "--output", str(tmp_path), "--seeds", "0", "--designs", BASE]
    monkeypatch.setattr("sys.argv", [*command, "--options", "backbone=nothing"])
    assert compare_designs.main() == 2
    error = capsys.readouterr().err
    assert f"The training of '{BASE}' with seed 0 ended with status 2" in error
    assert "screen.txt" in error
