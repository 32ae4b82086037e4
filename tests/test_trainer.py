"""A run: schedule, optimization, resuming, records and checkpoints, evaluation's files."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from toy import (
    CPU,
    ToyDataset,
    ToyModel,
    ToyPeopleDataset,
    ToyPeopleModel,
    make_toy_trainer,
    run_toy_training,
    toy_evaluation,
    toy_optimization,
)

from util import checkpoint
from util.config import Config
from util.errors import UserError
from util.logging import read_json_lines
from util.loss_means import NonFiniteLossError
from util.optimization import LearningRateSchedule, autocast_dtype

pytestmark = pytest.mark.usefixtures("one_thread")


# --- optimization --------------------------------------------------------------------------------


def test_learning_rates_warm_up_and_drop():
    schedule = LearningRateSchedule(drop_epochs=(2, 4), warmup_steps=10)
    assert schedule.factor(epoch=0, step=0) == pytest.approx(0.1)
    assert schedule.factor(epoch=0, step=4) == pytest.approx(0.5)
    assert schedule.factor(epoch=1, step=500) == 1.0
    assert schedule.factor(epoch=2, step=1000) == pytest.approx(0.1)
    assert schedule.factor(epoch=4, step=2000) == pytest.approx(0.01)


def test_steps_follow_the_schedule_from_the_full_rate():
    model = ToyModel()
    optimization = toy_optimization(model, warmup_steps=4)
    rates = []
    for epoch in (0, 0, 0, 0, 1, 2, 2):
        optimization.backward(sum(p.sum() for p in model.parameters()))
        optimization.step(epoch)
        rates.append(optimization.rates()["rest"])
    expected = [0.0125, 0.025, 0.0375, 0.05, 0.05, 0.005, 0.005]
    assert rates == pytest.approx(expected)
    assert optimization.steps == 7


@pytest.mark.parametrize(("limit", "norm"), [(0.5, 0.5), (0, None)])
def test_gradients_are_clipped_and_their_norm_recorded(limit, norm):
    model = ToyModel()
    optimization = toy_optimization(model, clip_max_norm=limit)
    optimization.backward(sum(p.sum() for p in model.parameters()))
    numbers = optimization.step(0)
    count = sum(p.numel() for p in model.parameters())
    assert numbers["grad_norm"].item() == pytest.approx(math.sqrt(count))
    after = math.sqrt(sum(p.grad.pow(2).sum().item() for p in model.parameters()))
    assert after == pytest.approx(norm or math.sqrt(count))


def test_a_step_is_adamws_and_continues_from_a_plain_ones_checkpoint():
    """Checkpoints of earlier versions come from the unfused AdamW."""
    torch.manual_seed(0)
    models = [ToyModel().double(), ToyModel().double()]
    models[1].load_state_dict(models[0].state_dict())
    plain = torch.optim.AdamW(models[0].named_parameters(), lr=0.05, weight_decay=0.01)

    def losses():
        for model in models:
            yield sum((p.sin() * p).sum() for p in model.parameters())

    def plain_step():
        plain.zero_grad()
        next(losses()).backward()
        plain.step()

    plain_step()
    models[1].load_state_dict(models[0].state_dict())
    resumed = toy_optimization(models[1], warmup_steps=0, clip_max_norm=0)
    saved = copy.deepcopy(plain.state_dict())
    group = {**saved["param_groups"][0], "name": "rest"}
    state = {"optimizer": {**saved, "param_groups": [group]}, "step": 1, "model": {}}
    resumed.load_state_dict(state)
    assert all(group["fused"] for group in resumed.optimizer.param_groups)
    for _ in range(3):
        plain_step()
        resumed.backward(list(losses())[1])
        resumed.step(0)
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], value, rtol=1e-12, atol=1e-12)


def test_an_overflow_in_float16_leaves_the_step_out_without_asking_the_host(monkeypatch):
    model = ToyModel()
    optimization = toy_optimization(model, warmup_steps=0, amp_dtype=torch.float16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scale = optimization.scaler.get_scale()
    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__bool__", "__float__"):
            patch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a step waits for a number"))
        optimization.backward(1e38 * sum(p.sum() for p in model.parameters()))
        assert optimization.step(0) == {}
    assert optimization.scaler.get_scale() == scale / 2
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value)
    optimization.backward(sum(p.sum() for p in model.parameters()))
    optimization.step(0)
    assert not torch.equal(model.state_dict()["out.weight"], before["out.weight"])


def test_mixed_precision_trains_on_the_cpu(tmp_path):
    assert autocast_dtype(CPU) == torch.bfloat16
    run_toy_training(tmp_path, 1, optimization={"amp_dtype": torch.bfloat16})
    record = read_json_lines(tmp_path / "log.txt")[0]
    assert all(math.isfinite(value) for value in record["train"].values())
    with toy_optimization(ToyModel(), amp_dtype=torch.bfloat16).autocast():
        assert torch.is_autocast_enabled("cpu")
    with toy_optimization(ToyModel()).autocast():
        assert not torch.is_autocast_enabled("cpu")


# --- resuming ------------------------------------------------------------------------------------


def optimizer_state(trainer):
    """Name of parameter -> its part of AdamW's state."""
    groups = trainer.optimization.optimizer.param_groups
    states = trainer.optimization.optimizer.state
    return {
        name: states[parameter]
        for group in groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
        if parameter in states
    }


def assert_same_state(first, second):
    """Weights and optimizer state of two trainers, bit by bit."""
    others = second.model.state_dict()
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, others[name]), name
    states = optimizer_state(first), optimizer_state(second)
    assert states[0].keys() == states[1].keys()
    for name, state in states[0].items():
        for key, value in state.items():
            assert torch.equal(value, states[1][name][key]), (name, key)


def make(folder):
    folder.mkdir()
    return folder


def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(tmp_path):
    straight = run_toy_training(make(tmp_path / "a"), 4)
    run_toy_training(make(tmp_path / "b"), 1)
    # Evaluation in between uses no random numbers of the training's.
    resumed = run_toy_training(
        tmp_path / "b", 4, eval_every=3, resume=checkpoint.load(tmp_path / "b" / "checkpoint.pth")
    )
    assert_same_state(straight, resumed)
    records = [read_json_lines(tmp_path / name / "log.txt") for name in "ab"]
    assert [record["epoch"] for record in records[1]] == [0, 1, 2, 3]
    for a, b in zip(*records, strict=True):
        assert (a["train"], a["lr"], a["step"]) == (b["train"], b["lr"], b["step"])
    assert "eval" in records[1][2] and "eval" not in records[1][1]


# The norm of the gradient is a sum in the order of the parameters: clipping would round otherwise.
UNCLIPPED = {"optimization": {"clip_max_norm": 0}}


def test_parameters_in_another_order_are_matched_by_name(tmp_path):
    straight = run_toy_training(make(tmp_path / "a"), 3, **UNCLIPPED)
    run_toy_training(make(tmp_path / "b"), 1, **UNCLIPPED)

    class Reordered(ToyModel):
        def __init__(self):
            super().__init__()
            self.colors = self._modules.pop("colors")  # now the last, of the shape of others

    state = checkpoint.load(tmp_path / "b" / "checkpoint.pth")
    resumed = run_toy_training(tmp_path / "b", 3, Reordered(), resume=state, **UNCLIPPED)
    assert_same_state(straight, resumed)


@pytest.mark.parametrize("reorder", [False, True])
def test_an_old_checkpoint_without_names_resumes_bit_by_bit(tmp_path, reorder):
    straight = run_toy_training(make(tmp_path / "a"), 3, **UNCLIPPED)
    run_toy_training(make(tmp_path / "b"), 1, **UNCLIPPED)
    state = checkpoint.load(tmp_path / "b" / "checkpoint.pth")
    for group in state["optimizer"]["param_groups"]:
        assert group.pop("param_names")

    class Reordered(ToyModel):
        def __init__(self):
            super().__init__()
            self.out = self._modules.pop("out")
            self.points, self.words = self._modules.pop("points"), self._modules.pop("words")

    model = Reordered() if reorder else ToyModel()
    resumed = run_toy_training(tmp_path / "b", 3, model, resume=state, **UNCLIPPED)
    assert_same_state(straight, resumed)


def spoil(state, change):
    groups = state["optimizer"]["param_groups"]
    if change == "a name less":
        groups[1]["param_names"].pop()
        groups[1]["params"].pop()
    elif change == "another name":
        groups[1]["param_names"].append("extra.weight")
        groups[1]["params"].append(99)
    elif change == "another shape":
        state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3, 3)
    elif change == "a number less":
        del groups[0]["param_names"], groups[1]["param_names"]
        groups[1]["params"].pop()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("a name less", "it did not train 'out.bias'"),
        ("another name", "it trained 'extra.weight', which is not trained here"),
        ("another shape", r"'colors.weight' was of shape \(3, 3\), not \(4, 3\)"),
        ("a number less", "6 instead of 7 in group 'rest'"),
    ],
)
def test_a_checkpoint_of_other_parameters_is_refused(tmp_path, change, message):
    run_toy_training(tmp_path, 1)
    state = checkpoint.load(tmp_path / "checkpoint.pth")
    spoil(state, change)
    with pytest.raises(UserError, match=f"trained other parameters.*: {message}. Resume with"):
        make_toy_trainer(tmp_path, 2, resume=state)


def test_resuming_takes_rates_from_the_configuration(tmp_path):
    run_toy_training(tmp_path, 1)
    state = checkpoint.load(tmp_path / "checkpoint.pth")
    for group in state["optimizer"]["param_groups"]:
        group["initial_lr"] = group["lr"] = 123.0
        group["weight_decay"] = 9.0
    trainer = run_toy_training(tmp_path, 2, resume=state)
    group = trainer.optimization.optimizer.param_groups[0]
    assert (group["initial_lr"], group["weight_decay"]) == (0.05, 0.01)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_epoch_saved_but_not_evaluated_is_evaluated_on_resuming(tmp_path, elsewhere):
    run_toy_training(make(tmp_path / "a"), 2)
    log = tmp_path / "a" / "log.txt"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(lines[0] + lines[1][:20])  # killed in the middle of the second line
    state = checkpoint.load(tmp_path / "a" / "checkpoint.pth")
    if elsewhere:
        log = make(tmp_path / "b") / "log.txt"
    run_toy_training(log.parent, 3, resume=state)
    records = read_json_lines(log)
    assert [record["epoch"] for record in records] == ([1, 2] if elsewhere else [0, 1, 2])
    assert log.read_text().splitlines(keepends=True)[-2] == lines[1]
    assert (log.parent / "checkpoint_best.pth").is_file()


def test_a_finished_training_has_nothing_left_to_do(tmp_path):
    run_toy_training(tmp_path, 2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    run_toy_training(tmp_path, 2, resume=checkpoint.load(tmp_path / "checkpoint.pth"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- the folder of a run -------------------------------------------------------------------------


def test_training_learns_and_leaves_its_files(tmp_path):
    run_toy_training(
        tmp_path, 5, note="a note", trackers=["tensorboard"], optimization={"clip_max_norm": 0}
    )
    records = read_json_lines(tmp_path / "log.txt")
    assert records[-1]["train"]["loss"] < 0.5 * records[0]["train"]["loss"]
    assert {r["note"] for r in records} == {"a note"}
    assert records[-1]["step"] == 5 * 5
    assert records[-1]["eval"]["scribble"]["num_samples"] == 5
    assert set(records[-1]["lr"]) == {"first", "rest"}
    assert json.loads((tmp_path / "eval.json").read_text()) == records[-1]["eval"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        ".lock",
        "checkpoint.pth",
        "checkpoint0001.pth",
        "checkpoint0003.pth",
        "checkpoint_best.pth",
        "checkpoint_best_mask.pth",
        "checkpoint_step00000020.pth",
        "checkpoint_step00000025.pth",
        "config.py",
        "eval.json",
        "log.txt",
        "tensorboard",
    }
    assert any((tmp_path / "tensorboard").iterdir())
    saved = checkpoint.load(tmp_path / "checkpoint.pth")
    assert (saved["epoch"], saved["config"]) == (4, {"seed": 7})
    keys = {"model", "optimizer", "scaler", "epoch", "step", "record", "config"}
    assert saved.keys() == keys | {"average", "batches", "within"}
    names = [n for group in saved["optimizer"]["param_groups"] for n in group["param_names"]]
    assert names == [name for name, _ in ToyModel().named_parameters()]
    best = max(records, key=lambda record: record["eval"]["scribble"]["keypoint_ap"])
    assert checkpoint.load(tmp_path / "checkpoint_best.pth")["epoch"] == best["epoch"]
    assert Config.fromfile(tmp_path / "config.py").to_dict() == {"seed": 7}


def test_only_the_asked_for_copies_and_evaluations(tmp_path):
    run_toy_training(tmp_path, 3, every=0, eval_every=0)
    assert not list(tmp_path.glob("checkpoint0*.pth"))
    assert not (tmp_path / "tensorboard").exists()
    records = read_json_lines(tmp_path / "log.txt")
    assert ["eval" in record for record in records] == [False, False, True]


@pytest.mark.parametrize("left", ["log.txt", "checkpoint.pth", "checkpoint0003.pth"])
def test_a_folder_that_holds_a_training_is_not_used_again(tmp_path, left):
    (tmp_path / left).write_text("{}\n")
    (tmp_path / "config.py").write_text("lr = 1\n")
    with pytest.raises(UserError, match=rf"holds a training already \({left}\).*--overwrite"):
        make_toy_trainer(tmp_path, 1)
    assert (tmp_path / left).read_text() == "{}\n"
    assert (tmp_path / "config.py").read_text() == "lr = 1\n"


def test_what_is_overwritten_stays_until_there_is_an_epoch_to_save(tmp_path):
    run_toy_training(tmp_path, 4, trackers=["tensorboard"])
    curves = set((tmp_path / "tensorboard").iterdir())
    (tmp_path / "config.py").write_text("lr = 1\n")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(NonFiniteLossError, match="none was saved"):
        run_toy_training(tmp_path, 1, ToyModel(spoilt_id=4), overwrite=True)
    assert {path: path.read_bytes() for path in before} == before

    run_toy_training(tmp_path, 1, overwrite=True, trackers=["tensorboard"])
    names = {path.name for path in tmp_path.iterdir()} - {"eval.json", "tensorboard"}
    assert names == {
        ".lock",
        "checkpoint.pth",
        "checkpoint_best.pth",
        "checkpoint_best_mask.pth",
        "checkpoint_step00000005.pth",
        "config.py",
        "log.txt",
    }
    assert [record["epoch"] for record in read_json_lines(tmp_path / "log.txt")] == [0]
    assert not curves & set((tmp_path / "tensorboard").iterdir())
    assert Config.fromfile(tmp_path / "config.py").to_dict() == {"seed": 7}


def test_a_resumed_run_that_fails_at_once_leaves_the_log_as_it_is(tmp_path):
    run_toy_training(tmp_path, 4)
    before = (tmp_path / "log.txt").read_bytes()
    early = checkpoint.load(tmp_path / "checkpoint0001.pth")
    with pytest.raises(NonFiniteLossError):
        run_toy_training(tmp_path, 5, ToyModel(spoilt_id=4), resume=early)
    assert (tmp_path / "log.txt").read_bytes() == before
    run_toy_training(tmp_path, 3, resume=early)
    assert [record["epoch"] for record in read_json_lines(tmp_path / "log.txt")] == [0, 1, 2]


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"epochs": 3, "start_epoch": 99}])
def test_nothing_to_train(tmp_path, settings):
    with pytest.raises(UserError, match="nothing to train: . epochs"):
        make_toy_trainer(tmp_path, **settings)


def test_training_may_start_at_a_later_epoch(tmp_path):
    run_toy_training(tmp_path, 3, start_epoch=2)
    assert [record["epoch"] for record in read_json_lines(tmp_path / "log.txt")] == [2]


# --- prompts and people --------------------------------------------------------------------------


def test_unused_projections_do_not_move(tmp_path):
    torch.manual_seed(0)
    before = ToyModel().state_dict()
    trainer = run_toy_training(tmp_path, 1, probabilities={"text": 1.0})
    after = trainer.model.state_dict()
    assert torch.equal(after["points.weight"], before["points.weight"])
    assert not torch.equal(after["words.weight"], before["words.weight"])


def test_a_model_without_prompts_trains_and_keeps_its_best(tmp_path):
    run_toy_training(tmp_path, 2, ToyPeopleModel(), dataset=ToyPeopleDataset)
    records = read_json_lines(tmp_path / "log.txt")
    assert [set(record["eval"]) for record in records] == [{"people"}] * 2
    assert (tmp_path / "checkpoint_best.pth").is_file()


def test_a_model_with_prompts_needs_data_with_prompts(tmp_path):
    message = "ToyModel needs a prompt with every image, and ToyPeopleDataset has none; choose a"
    with pytest.raises(UserError, match=message):
        make_toy_trainer(tmp_path, 1, dataset=ToyPeopleDataset)
    with pytest.raises(UserError, match=message):
        toy_evaluation(tmp_path, dataset=ToyPeopleDataset).run(ToyModel())


@pytest.mark.parametrize(
    ("prompts", "message"),
    [(("text", "words"), "Unknown kind of prompt 'words'"), ((), "eval_prompts is empty")],
)
def test_impossible_evaluation_prompts(tmp_path, prompts, message):
    with pytest.raises(UserError, match=message):
        make_toy_trainer(tmp_path, 1, eval_prompts=prompts)


# --- evaluation's files --------------------------------------------------------------------------


def test_evaluation_writes_predictions_and_images(tmp_path):
    torch.manual_seed(5)
    evaluation = toy_evaluation(
        tmp_path, prompts=("text", "point"), save_predictions=True, num_images=3
    )
    metrics = evaluation.run(ToyModel())
    assert list(metrics) == ["text", "point"]
    images = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert images == [f"{i:05d}_{i + 1}_{k}.png" for i in range(3) for k in ("point", "text")]
    predictions = json.loads((tmp_path / "predictions_text.json").read_text())
    assert len(predictions) == 10
    assert {len(prediction["keypoints"]) for prediction in predictions} == {51}


@pytest.mark.parametrize("dataset", [ToyDataset, ToyPeopleDataset])
def test_a_model_without_prompts_evaluates_on_any_data(tmp_path, dataset):
    torch.manual_seed(5)
    evaluation = toy_evaluation(tmp_path, dataset=dataset, save_predictions=True, num_images=4)
    metrics = evaluation.run(ToyPeopleModel())
    assert list(metrics) == ["people"]
    assert "keypoint_ap" in metrics["people"]
    assert json.loads((tmp_path / "eval.json").read_text()) == metrics
    assert len(json.loads((tmp_path / "predictions_people.json").read_text())) == 10
    images = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert images == [f"{i:05d}_{i + 1}_people.png" for i in range(4)]
    assert np.asarray(Image.open(tmp_path / "images" / images[3])).ndim == 3
