"""The loops: prompts, schedule, resuming, stopping, several processes, evaluation."""

import json
import math
from collections import Counter

import pytest
import torch
from launch import ROOT, run_python
from toy import (
    ToyModel,
    ToyPostProcess,
    evaluate_toy,
    run_toy_training,
    toy_evaluation,
    toy_loader,
    toy_settings,
    train_without_dropout,
)

import engine
from models.uniphd.prompt_encoder import PointPrompt, ScribblePrompt, TextPrompt
from util import checkpoint
from util.logging import read_json_lines

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in the same order in every run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- prompts and schedule ------------------------------------------------------------------------


def test_prompt_kinds_follow_their_probabilities_and_nothing_else():
    sampler = engine.PromptSampler({"text": 1.0, "scribble": 0.5, "point": 0.5}, seed=1)
    kinds = [sampler.kind(epoch=0, step=step) for step in range(2000)]
    counts = Counter(kinds)
    assert abs(counts["text"] / 2000 - 0.5) < 0.05
    assert abs(counts["scribble"] / 2000 - 0.25) < 0.05
    assert [sampler.kind(0, step) for step in range(50)] == kinds[:50]
    assert [sampler.kind(1, step) for step in range(50)] != kinds[:50]
    only_points = engine.PromptSampler({"text": 0.0, "scribble": 0.0, "point": 0.1}, seed=1)
    assert {only_points.kind(0, step) for step in range(50)} == {"point"}


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ({"text": 0.0}, "all zero"),
        ({"text": -1.0, "point": 2.0}, "text = -1.0"),
        ({"word": 1.0}, "word = 1.0"),
    ],
)
def test_impossible_probabilities(probabilities, message):
    with pytest.raises(ValueError, match=message):
        engine.PromptSampler(probabilities, seed=1)


def test_prompts_of_a_batch():
    targets = [
        {"image_id": i, "caption": f"caption {i}", "scribble": torch.arange(24.0).view(12, 2) + i}
        for i in range(3)
    ]
    text = engine.make_prompt("text", targets)
    assert isinstance(text, TextPrompt) and text.captions == ["caption 0", "caption 1", "caption 2"]
    scribble = engine.make_prompt("scribble", targets)
    assert isinstance(scribble, ScribblePrompt)
    assert torch.equal(scribble.points, torch.stack([t["scribble"] for t in targets]))
    point = engine.make_prompt("point", targets)
    assert isinstance(point, PointPrompt)
    assert point.points.tolist() == [[[10.0 + i, 11.0 + i]] for i in range(3)]  # index 5
    point = engine.make_prompt("point", targets, [4, 7, 6])
    assert point.points[:, 0, 0].tolist() == [8.0, 15.0, 14.0]


def test_training_points_are_the_published_ones():
    sampler = engine.PromptSampler({"point": 1.0}, seed=1)
    drawn = [index for step in range(40) for index in sampler.point_indices(0, step, 3)]
    assert set(drawn) == {4, 5, 6, 7}
    assert sampler.point_indices(0, 3, 3) == drawn[9:12]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "Image id 8 has no caption"),
        ("point", "Image id 8 has no scribble"),
        ("word", "Unknown prompt kind 'word'; expected one of text, point, scribble"),
    ],
)
def test_a_sample_without_its_prompt(kind, message):
    with pytest.raises(ValueError, match=message):
        engine.make_prompt(kind, [{"image_id": 8}])


def test_learning_rates_warm_up_and_drop():
    schedule = engine.LearningRateSchedule(drop_epochs=(2, 4), warmup_steps=10)
    assert schedule.factor(epoch=0, step=0) == pytest.approx(0.1)
    assert schedule.factor(epoch=0, step=4) == pytest.approx(0.5)
    assert schedule.factor(epoch=1, step=500) == 1.0
    assert schedule.factor(epoch=2, step=1000) == pytest.approx(0.1)
    assert schedule.factor(epoch=4, step=2000) == pytest.approx(0.01)
    optimizer = torch.optim.SGD(
        [{"params": [torch.zeros(1)], "lr": lr} for lr in (1.0, 0.01)], lr=1.0
    )
    schedule.apply(optimizer, 0, 4)
    schedule.apply(optimizer, 2, 1000)  # from the full rate, not from the last one
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.001])


# --- training ------------------------------------------------------------------------------------


def assert_same_state(first, second):
    """Weights and optimizer state, bit by bit."""
    for (name, a), (_, b) in zip(
        first[0].state_dict().items(), second[0].state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    states = [optimizer.state_dict()["state"] for _, optimizer in (first, second)]
    assert states[0].keys() == states[1].keys()
    for index, state in states[0].items():
        for name, value in state.items():
            assert torch.equal(value, states[1][index][name]), (index, name)


def test_a_resumed_run_is_the_uninterrupted_one_bit_by_bit(tmp_path):
    straight = run_toy_training(make(tmp_path / "a"), toy_settings(4))
    run_toy_training(make(tmp_path / "b"), toy_settings(1))
    # Evaluation in between uses no random numbers of the training's.
    resumed = run_toy_training(
        tmp_path / "b",
        toy_settings(4, eval_every=3),
        resume=checkpoint.load(tmp_path / "b" / "checkpoint.pth"),
    )
    assert_same_state(straight, resumed)
    records = [read_json_lines(tmp_path / name / "log.txt") for name in "ab"]
    assert [record["epoch"] for record in records[1]] == [0, 1, 2, 3]
    for a, b in zip(*records, strict=True):
        assert (a["train"], a["lr"], a["step"]) == (b["train"], b["lr"], b["step"])
    assert "eval" in records[1][2] and "eval" not in records[1][1]


def make(folder):
    folder.mkdir()
    return folder


def test_training_learns_and_leaves_its_files(tmp_path):
    run_toy_training(tmp_path, toy_settings(5, note="a note", tensorboard=True, clip_max_norm=0))
    records = read_json_lines(tmp_path / "log.txt")
    assert records[-1]["train"]["loss"] < 0.5 * records[0]["train"]["loss"]
    assert {r["note"] for r in records} == {"a note"}
    assert records[-1]["step"] == 5 * 5
    assert records[-1]["eval"]["scribble"]["num_samples"] == 5
    assert json.loads((tmp_path / "eval.json").read_text()) == records[-1]["eval"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "checkpoint.pth",
        "checkpoint0001.pth",
        "checkpoint0003.pth",
        "checkpoint_best.pth",
        "eval.json",
        "log.txt",
        "tensorboard",
    }
    assert any((tmp_path / "tensorboard").iterdir())
    saved = checkpoint.load(tmp_path / "checkpoint.pth")
    assert (saved["epoch"], saved["config"]) == (4, {"seed": 7})
    best = max(records, key=lambda record: record["eval"]["scribble"]["keypoint_ap"])
    assert checkpoint.load(tmp_path / "checkpoint_best.pth")["epoch"] == best["epoch"]


def test_an_epoch_saved_but_not_evaluated_is_evaluated_on_resuming(tmp_path):
    run_toy_training(tmp_path, toy_settings(2))
    log = tmp_path / "log.txt"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(lines[0] + lines[1][:20])  # killed in the middle of the second line
    state = checkpoint.load(tmp_path / "checkpoint.pth")
    run_toy_training(tmp_path, toy_settings(3), resume=state)
    records = read_json_lines(log)
    assert [record["epoch"] for record in records] == [0, 1, 2]
    assert log.read_text().splitlines(keepends=True)[1] == lines[1]


def test_resuming_takes_rates_from_the_configuration(tmp_path):
    run_toy_training(tmp_path, toy_settings(1))
    state = checkpoint.load(tmp_path / "checkpoint.pth")
    for group in state["optimizer"]["param_groups"]:
        group["initial_lr"] = group["lr"] = 123.0
    _, optimizer = run_toy_training(tmp_path, toy_settings(2), resume=state)
    assert optimizer.param_groups[0]["initial_lr"] == 0.05


def test_resuming_from_weights_alone_or_another_model_is_refused(tmp_path):
    run_toy_training(tmp_path, toy_settings(1))
    state = checkpoint.load(tmp_path / "checkpoint.pth")
    weights_only = {"model": state["model"]}
    with pytest.raises(ValueError, match="no optimizer.*--pretrain_model_path"):
        run_toy_training(tmp_path, toy_settings(2), resume=weights_only)
    state["optimizer"]["param_groups"][0]["params"].pop()
    with pytest.raises(ValueError, match="trained other parameters"):
        run_toy_training(tmp_path, toy_settings(2), resume=state)


def test_unused_projections_do_not_move(tmp_path):
    prompts = engine.PromptSampler({"text": 1.0}, seed=7)
    torch.manual_seed(0)
    before = ToyModel().state_dict()
    model, _ = run_toy_training(tmp_path, toy_settings(1, prompts=prompts))
    after = model.state_dict()
    assert torch.equal(after["points.weight"], before["points.weight"])
    assert not torch.equal(after["words.weight"], before["words.weight"])


def test_a_bad_loss_stops_and_the_last_checkpoint_stays(tmp_path):
    run_toy_training(tmp_path, toy_settings(1))
    before = (tmp_path / "checkpoint.pth").read_bytes()
    model = ToyModel(spoilt_id=4)
    with pytest.raises(engine.NonFiniteLossError) as error:
        run_toy_training(
            tmp_path,
            toy_settings(2),
            model=model,
            resume=checkpoint.load(tmp_path / "checkpoint.pth"),
        )
    message = str(error.value)
    # Order of the second epoch: the image's iteration follows from the sampler.
    loader = toy_loader(9, True, 2)
    loader.sampler.set_epoch(1)
    order = list(loader.sampler)
    step = order.index(3) // 2
    pair = [index + 1 for index in order[2 * step : 2 * step + 2]]
    assert f"epoch 1, iteration {step}, " in message
    assert f"image ids {', '.join(map(str, pair))}: loss = nan, loss_square = nan" in message
    assert "checkpoint.pth holds the last good epoch" in message
    assert (tmp_path / "checkpoint.pth").read_bytes() == before


def test_an_infinite_gradient_stops_too(tmp_path):
    class Root(ToyModel):
        def forward(self, samples, prompt, targets=None):
            outputs = super().forward(samples, prompt, targets)
            # sqrt(0): the value is finite, its derivative is not.
            return {**outputs, "value": outputs["value"] + (outputs["value"] * 0).sqrt()}

    with pytest.raises(engine.NonFiniteLossError, match="grad_norm = nan"):
        run_toy_training(tmp_path, toy_settings(1), model=Root())
    assert not (tmp_path / "checkpoint.pth").exists()


def test_mixed_precision_trains_on_the_cpu(tmp_path):
    run_toy_training(tmp_path, toy_settings(1, amp=True))
    record = read_json_lines(tmp_path / "log.txt")[0]
    assert all(math.isfinite(value) for value in record["train"].values())
    assert engine.autocast_dtype(CPU) == torch.bfloat16


# --- several processes ---------------------------------------------------------------------------

# One start for all that is asked of two processes: most of the time goes into imports.
TWO_PROCESSES = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}]  # the toys
import json, torch
import engine
from pathlib import Path
from toy import *
from util import distributed

folder = Path(sys.argv[1])
distributed.initialize("cpu")
processes = distributed.rank(), distributed.world_size()

weights = train_without_dropout(folder / "train", processes)
assert all(torch.equal(other, weights) for other in distributed.all_gather_object(weights))

metrics = evaluate_toy(folder / "evaluate", batch_size=2, processes=processes)
assert all(other == metrics for other in distributed.all_gather_object(metrics))

prompts = engine.PromptSampler({{"text": 0.5, "scribble": 0.25, "point": 0.25}}, seed=7)
message = ""
try:
    model = ToyModel(spoilt_id=4)
    run_toy_training(folder / "stop", toy_settings(1), model=model, processes=processes)
except engine.NonFiniteLossError as error:
    message = str(error)

print(json.dumps({{
    "kinds": [prompts.kind(0, step) for step in range(8)],
    "points": [prompts.point_indices(0, step, 2) for step in range(8)],
    "weights": weights.tolist(),
    "message": message,
}}))
distributed.shutdown()
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder that two processes wrote to, and what each of them printed at the end."""
    folder = tmp_path_factory.mktemp("two_processes")
    for name in ("train", "evaluate", "stop"):
        (folder / name).mkdir()
    results = run_python(["-c", TWO_PROCESSES, folder], processes=2)
    for result in results:
        assert result.returncode == 0, result.stderr
    return folder, [json.loads(result.stdout.splitlines()[-1]) for result in results]


def test_two_processes_draw_the_same_kinds_and_other_points(two_processes):
    _, (first, second) = two_processes
    assert first["kinds"] == second["kinds"]
    assert first["points"] != second["points"]


def test_two_processes_train_as_one_with_twice_the_batch(two_processes, tmp_path):
    folder, (together, _) = two_processes
    alone = train_without_dropout(tmp_path, processes=(0, 1))
    assert together["weights"] == pytest.approx(alone.tolist(), rel=1e-4, abs=1e-5)
    records = [read_json_lines(path / "log.txt") for path in (tmp_path, folder / "train")]
    for a, b in zip(*records, strict=True):
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], rel=1e-4)
        assert a["eval"]["scribble"]["num_samples"] == b["eval"]["scribble"]["num_samples"] == 5


def test_a_bad_loss_of_one_process_stops_both(two_processes):
    folder, outputs = two_processes
    for output in outputs:
        assert "process 0: image ids" in output["message"]
        assert "process 1: image ids" in output["message"]
        assert output["message"].count("loss = nan") == 1
    assert not (folder / "stop" / "checkpoint.pth").exists()


def test_metrics_do_not_depend_on_processes_or_batches(two_processes, tmp_path):
    folder, _ = two_processes
    alone = evaluate_toy(tmp_path, batch_size=3)
    assert evaluate_toy(tmp_path, batch_size=1) == alone
    assert json.loads((folder / "evaluate" / "eval.json").read_text()) == alone
    assert alone["scribble"]["num_samples"] == 7  # which 2 does not divide
    for name in ("keypoint_ap", "mask_ap", "box_ap", "miou"):
        assert 0.02 < alone["scribble"][name] < 1, name  # not trivially equal
    assert alone["scribble"] != alone["text"]


# --- evaluation ----------------------------------------------------------------------------------


def test_evaluation_writes_predictions_and_images_and_restores_the_mode(tmp_path):
    torch.manual_seed(5)
    model = ToyModel()
    evaluation = toy_evaluation(kinds=("text", "point"))
    evaluation = engine.Evaluation(
        evaluation.loader,
        evaluation.ground_truth,
        evaluation.kinds,
        save_predictions=True,
        num_images=3,
    )
    model.train()
    metrics = engine.evaluate_all(model, ToyPostProcess(), evaluation, CPU, tmp_path)
    assert model.training
    assert list(metrics) == ["text", "point"]
    images = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert images == [f"{i:05d}_{i + 1}_{k}.png" for i in range(3) for k in ("point", "text")]
    predictions = json.loads((tmp_path / "predictions_text.json").read_text())
    assert len(predictions) == 10
    assert {len(prediction["keypoints"]) for prediction in predictions} == {51}


def test_unknown_evaluation_prompt():
    with pytest.raises(ValueError, match="eval_triggers: expected some of text, point, scribble"):
        toy_evaluation(kinds=("text", "words"))
