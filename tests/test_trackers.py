"""Where curves and images go: TensorBoard, and stand-ins of Weights & Biases and MLflow."""

from __future__ import annotations

import argparse
import json
import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from launch import ROOT, run_python
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import ToyModel, make_toy_trainer, run_toy_training, toy_evaluation

from trainer import SHOWN_SAMPLES
from util.errors import UserError
from util.loss_means import NonFiniteLossError
from util.trackers import Trackers, parse_trackers


def board(folder):
    """What TensorBoard shows of a folder: {curve: {step: value}}, {image: [steps]}."""
    shown = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    shown.Reload()
    tags = shown.Tags()
    curves = {}
    for name in tags["scalars"]:
        events = shown.Scalars(name)
        curves[name] = {event.step: event.value for event in events}
        assert len(curves[name]) == len(events), f"{name}: two points at a step"
    images = {name: [event.step for event in shown.Images(name)] for name in tags["images"]}
    return curves, images


# --- TensorBoard ---------------------------------------------------------------------------------


def test_curves_and_images_of_a_training(tmp_path):
    run_toy_training(
        tmp_path, 2, trackers=["tensorboard"], ema_decay=0.5, eval_prompts=("text", "point")
    )
    curves, images = board(tmp_path)
    within = [2, 4, 5, 7, 9, 10]  # every second step, and the last of an epoch
    for name in ("step/loss", "step/loss_square", "step/grad_norm", "lr/first", "lr/rest"):
        assert list(curves[name]) == within, name
    for name in ("images_per_second", "data_seconds", "step_seconds", "memory_mib"):
        assert list(curves[f"speed/{name}"]) == within
    records = [json.loads(line) for line in (tmp_path / "log.txt").read_text().splitlines()]
    for name, key, metric in (
        ("train/loss", "train", "loss"),
        ("text/keypoint_ap", "eval", "keypoint_ap"),
        ("point/miou", "eval", "miou"),
        ("text_average/oiou", "eval_average", "oiou"),
    ):
        kind = name.partition("/")[0].removesuffix("_average")
        values = [r[key][kind] if key != "train" else r[key] for r in records]
        expected = {step: v[metric] for step, v in zip((5, 10), values, strict=True)}
        assert curves[name] == pytest.approx(expected), name
    assert images == {
        f"{kind}/{index:05d}_{index + 1}": [5, 10]
        for kind in ("text", "point", "text_average", "point_average")
        for index in range(SHOWN_SAMPLES)
    }
    assert not (tmp_path / "images").exists()


def test_curves_after_the_resumed_step_are_taken_back(tmp_path):
    settings = {"trackers": ["tensorboard"], "steps": 3, "log_every": 1, "keep_checkpoints": 9}
    run_toy_training(tmp_path, 3, **settings)
    whole, _ = board(tmp_path)
    assert list(whole["step/loss"]) == list(range(1, 16))
    resume = tmp_path / "checkpoint_step00000008.pth"  # within the second epoch
    with pytest.raises(NonFiniteLossError):
        run_toy_training(tmp_path, 3, ToyModel(spoilt_id=4), resume=resume, **settings)
    trainer = make_toy_trainer(tmp_path, 2, resume=resume, **settings)
    trainer.run()
    curves, images = board(tmp_path)
    for name, points in whole.items():
        if name.startswith("speed"):
            continue
        assert curves[name] == {step: v for step, v in points.items() if step <= 10}, name
    assert list(images["scribble/00000_1"]) == [5, 10]


def test_curves_of_a_replaced_run_stay_until_there_is_something_to_save(tmp_path):
    run_toy_training(tmp_path, 2, trackers=["tensorboard"])
    before = board(tmp_path)
    with pytest.raises(NonFiniteLossError):
        run_toy_training(
            tmp_path, 1, ToyModel(spoilt_id=4), overwrite=True, trackers=["tensorboard"]
        )
    assert board(tmp_path) == before
    run_toy_training(tmp_path, 1, overwrite=True, trackers=["tensorboard"])
    assert list(board(tmp_path)[0]["step/loss"]) == [2, 4, 5]  # none of the first is lost
    run_toy_training(tmp_path, 1, overwrite=True)
    assert not list((tmp_path / "tensorboard").iterdir())


# --- images --------------------------------------------------------------------------------------

TWO_PROCESSES = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}]  # the toys
from pathlib import Path
import numpy as np
from toy import *

folder = Path(sys.argv[1])
distributed.initialize("cpu")
torch.manual_seed(5)
evaluation = toy_evaluation(
    folder, 7, batch_size=1, processes=(distributed.rank(), distributed.world_size())
)
shown = {{}}
evaluation.run(ToyModel(), show=shown.__setitem__)
if shown:
    np.savez(folder / f"shown_{{distributed.rank()}}.npz", **shown)
distributed.shutdown()
"""


def test_shown_samples_are_the_first_on_any_number_of_processes(tmp_path):
    for result in run_python(["-c", TWO_PROCESSES, tmp_path], processes=2):
        assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.glob("*.npz")] == ["shown_0.npz"]
    torch.manual_seed(5)
    alone = {}
    toy_evaluation(tmp_path, 7, batch_size=3).run(ToyModel(), show=alone.__setitem__)
    assert list(alone) == [f"scribble/{i:05d}_{i + 1}" for i in range(SHOWN_SAMPLES)]
    with np.load(tmp_path / "shown_0.npz") as together:
        assert list(together) == list(alone)
        for name, pixels in alone.items():
            assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
            assert np.array_equal(together[name], pixels)


def test_image_files_and_shown_samples_are_counted_apart(tmp_path):
    torch.manual_seed(5)
    shown = []
    evaluation = toy_evaluation(tmp_path, length=7, num_images=6)
    evaluation.run(ToyModel(), show=lambda name, pixels: shown.append(name))
    assert len(shown) == SHOWN_SAMPLES
    assert len(list((tmp_path / "images").iterdir())) == 6


# --- others' libraries ---------------------------------------------------------------------------


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for Weights & Biases; `wandb.runs` are those that were begun."""
    module = ModuleType("wandb")
    module.runs = []

    class Run:
        def __init__(self, settings):
            self.settings, self.logged, self.finished = settings, [], False
            self.id = settings["id"] or f"run{len(module.runs)}"
            self.config = SimpleNamespace(update=lambda values, allow_val_change: None)

        def define_metric(self, name, step_metric):
            self.x_axis = {name: step_metric}

        def log(self, values):
            self.logged.append(values)

        def finish(self):
            self.finished = True

    def init(**settings):
        module.runs.append(Run(settings))
        return module.runs[-1]

    module.init = init
    module.Image = lambda pixels: ("image", pixels.shape)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in for MLflow; `mlflow.calls` are those that it got."""
    module = ModuleType("mlflow")
    module.calls = []

    def call(name):
        return lambda *values, **named: module.calls.append((name, values, named))

    for name in ("set_experiment", "log_metrics", "log_image", "log_dict", "end_run"):
        setattr(module, name, call(name))

    def start_run(run_id=None, run_name=None):
        module.calls.append(("start_run", (run_id,), {"run_name": run_name}))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "new"))

    module.start_run = start_run
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


def test_weights_and_biases(tmp_path, wandb):
    run_toy_training(tmp_path, 1, trackers=["wandb"], note="a note")
    (run,) = wandb.runs
    assert run.settings["name"] == tmp_path.name and run.settings["dir"] == str(tmp_path)
    assert run.finished and run.x_axis == {"*": "training_step"}
    steps = [values["training_step"] for values in run.logged if "step/loss" in values]
    assert steps == [2, 4, 5]
    assert run.logged[-1]["scribble/num_samples"] == 5
    images = [values for values in run.logged if "scribble/00000_1" in values]
    assert images[0]["scribble/00000_1"][0] == "image" and images[0]["training_step"] == 5
    # The same run goes on; an overwritten one is another.
    run_toy_training(tmp_path, 2, trackers=["wandb"], resume=tmp_path / "checkpoint.pth")
    assert wandb.runs[1].settings["id"] == run.id
    run_toy_training(tmp_path, 1, trackers=["wandb"], overwrite=True)
    assert wandb.runs[2].settings["id"] is None
    assert [v["training_step"] for v in wandb.runs[2].logged if "step/loss" in v] == [2, 4, 5]


def test_mlflow(tmp_path, mlflow):
    for epochs in (1, 2):
        resume = tmp_path / "checkpoint.pth" if epochs > 1 else None
        run_toy_training(tmp_path, epochs, trackers=["mlflow"], resume=resume)
    names = [name for name, *_ in mlflow.calls]
    assert names[:3] == ["set_experiment", "start_run", "log_dict"] and names[-1] == "end_run"
    starts = [values[0] for name, values, _ in mlflow.calls if name == "start_run"]
    assert starts == [None, "new"] and names.count("set_experiment") == 1
    points = [(values[0], named) for name, values, named in mlflow.calls if name == "log_metrics"]
    assert [named["step"] for values, named in points if "step/loss" in values] == [
        2,
        4,
        5,
        7,
        9,
        10,
    ]
    names = {name for values, _ in points for name in values}
    assert "scribble/precision_0.5" in names  # MLflow knows no "@"
    assert all(re.fullmatch(r"[\w./ -]+", name) for name in names)
    files = [values[1] for name, values, _ in mlflow.calls if name == "log_image"]
    assert files[0] == "images/scribble/00000_1_00000005.png"


def test_several_trackers_and_numbers_that_are_none(tmp_path, wandb, mlflow):
    trackers = Trackers(["mlflow", "wandb", "mlflow"], tmp_path, {"lr": 1.0})
    assert not wandb.runs and not mlflow.calls  # nothing to track yet
    trackers.scalars({"a": 1.0, "b": float("nan"), "c": None, "d": float("inf")}, 3)
    trackers.close()
    assert wandb.runs[0].logged == [{"a": 1.0, "training_step": 3}]
    assert ("log_metrics", ({"a": 1.0},), {"step": 3}) in mlflow.calls
    assert [name for name, *_ in mlflow.calls].count("end_run") == 1
    ids = json.loads((tmp_path / "trackers.json").read_text())
    assert ids == {"mlflow": "new", "wandb": "run0"}


def test_a_tracker_that_fails_is_given_up(tmp_path, wandb, log_lines):
    def fail(values):
        raise ConnectionError("no network")

    run_toy_training(tmp_path, 1, trackers=["wandb"])
    wandb.init = lambda **settings: SimpleNamespace(
        id="x",
        log=fail,
        define_metric=lambda *_, **__: None,
        config=SimpleNamespace(update=lambda *_, **__: None),
    )
    run_toy_training(
        tmp_path, 2, trackers=["wandb", "tensorboard"], resume=tmp_path / "checkpoint.pth"
    )
    failure = "Tracker wandb failed (ConnectionError: no network); the run goes on without it."
    assert log_lines.count(failure) == 1
    assert list(board(tmp_path)[0]["step/loss"]) == [7, 9, 10]
    assert (tmp_path / "checkpoint_step00000010.pth").is_file()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_library_is_told_at_once(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    message = f"--tracker {name}: .*pip install -r requirements-tracking.txt"
    with pytest.raises(UserError, match=message):
        make_toy_trainer(tmp_path, 1, trackers=[name])
    assert (ROOT / "requirements-tracking.txt").read_text().count(f"\n{name}>=") == 1


def test_names_of_trackers():
    assert parse_trackers("wandb, tensorboard") == ["wandb", "tensorboard"]
    with pytest.raises(argparse.ArgumentTypeError, match="unknown tracker 'wnb'; expected tensor"):
        parse_trackers("wandb,wnb")
