"""The two loops: bad losses, models with and without prompts, several processes, variants."""

import json

import pytest
import torch
from launch import ROOT, run_python
from toy import (
    CPU,
    PeopleEvaluator,
    ToyCriterion,
    ToyModel,
    ToyPeopleDataset,
    ToyPeopleModel,
    ToyPostProcess,
    evaluate_toy,
    run_toy_training,
    toy_loader,
    toy_optimization,
    train_without_dropout,
)

import engine
from datasets.prompts import PromptSampler, get_kind
from util import checkpoint
from util.logging import read_json_lines
from util.loss_means import LossMeans, NonFiniteLossError

pytestmark = pytest.mark.usefixtures("one_thread")


def train(model, probabilities=None, dataset=None, **settings):
    """One epoch of the bare loop; returns what it records."""
    loader = toy_loader(9, True, 2, **({} if dataset is None else {"dataset": dataset}))
    prompts = None if probabilities is None else PromptSampler(probabilities, seed=7)
    settings = {"epoch": 0, "seed": 7, **settings}
    optimization = toy_optimization(model)
    return engine.train_one_epoch(
        model, ToyCriterion(), loader, optimization, device=CPU, prompts=prompts, **settings
    )


# --- training ------------------------------------------------------------------------------------


def test_losses_are_recorded_by_kind_of_prompt():
    means = train(ToyModel(), {"text": 1.0, "point": 1.0})
    names = {"loss", "loss_square", "loss_size", "grad_norm"}
    assert set(means) == names | {"loss_text", "loss_point"}
    assert min(means["loss_text"], means["loss_point"]) < means["loss"]
    assert max(means["loss_text"], means["loss_point"]) > means["loss"]


def test_a_model_without_prompts_gets_none_and_records_no_kinds():
    means = train(ToyPeopleModel(), dataset=ToyPeopleDataset)
    assert set(means) == {"loss", "loss_square", "loss_size", "grad_norm"}


def test_the_epoch_and_the_seed_decide_everything_random():
    def once(**settings):
        torch.manual_seed(0)
        model = ToyModel()
        torch.manual_seed(len(settings))
        return train(model, {"text": 1.0}, **settings)["loss"]

    assert once() == once(epoch=0, seed=7)
    assert len({once(), once(epoch=1), once(seed=8)}) == 3


def test_losses_are_looked_at_one_step_later():
    means = LossMeans(epoch=3)
    bad = {"loss": torch.tensor(float("nan"))}
    means.add(5, "text", [8], bad)
    with pytest.raises(NonFiniteLossError, match="epoch 3, iteration 5, text prompts.\n.*ids 8: "):
        means.add(6, "text", [9], {"loss": torch.tensor(1.0)})


def test_a_bad_loss_stops_and_the_last_checkpoint_stays(tmp_path):
    run_toy_training(tmp_path, 1)
    before = (tmp_path / "checkpoint.pth").read_bytes()
    resume = checkpoint.load(tmp_path / "checkpoint.pth")
    with pytest.raises(NonFiniteLossError) as error:
        run_toy_training(tmp_path, 2, ToyModel(spoilt_id=4), resume=resume)
    message = str(error.value)
    # Order of the second epoch: the image's iteration follows from the sampler.
    loader = toy_loader(9, True, 2)
    loader.batch_sampler.start(1)
    step, batch = next((s, b) for s, b in enumerate(loader.batch_sampler) if 3 in b)
    pair = [index + 1 for index in batch]
    assert f"epoch 1, iteration {step}, " in message
    assert f"image ids {', '.join(map(str, pair))}: loss = nan, loss_square = nan" in message
    assert "checkpoint.pth holds the last good state" in message
    assert (tmp_path / "checkpoint.pth").read_bytes() == before


def test_an_infinite_gradient_stops_too(tmp_path):
    class Root(ToyModel):
        def forward(self, samples, prompts=None, targets=None, features=None):
            outputs = super().forward(samples, prompts, targets, features)
            # sqrt(0): the value is finite, its derivative is not.
            return {**outputs, "value": outputs["value"] + (outputs["value"] * 0).sqrt()}

    with pytest.raises(NonFiniteLossError, match="grad_norm = nan(.|\n)*none was saved"):
        run_toy_training(tmp_path, 1, Root())
    assert not (tmp_path / "checkpoint.pth").exists()


# --- evaluation ----------------------------------------------------------------------------------


def test_images_are_encoded_once_for_all_variants():
    loader = toy_loader(5, False, 2)
    variants = {
        name: (loader.dataset.make_evaluator(), get_kind(name)) for name in ("text", "point")
    }
    torch.manual_seed(5)
    model = ToyModel().train()
    seen = []
    metrics = engine.evaluate(
        model, ToyPostProcess(), loader, variants, device=CPU, inspect=seen.append
    )
    assert model.training
    assert model.encoded == 3
    assert list(metrics) == ["text", "point"]
    assert metrics["text"] != metrics["point"]
    assert [(batch.variant, batch.indices) for batch in seen] == [
        (name, indices) for indices in ([0, 1], [2, 3], [4]) for name in ("text", "point")
    ]
    assert [target["image_id"] for target in seen[-1].targets] == [5]
    assert len(seen[0].prompts) == len(seen[0].results) == 2


@pytest.mark.parametrize("length", [5, 8])
def test_a_model_without_prompts_has_one_variant(length):
    loader = toy_loader(length, False, 2, dataset=ToyPeopleDataset)
    seen = []
    metrics = engine.evaluate(
        ToyPeopleModel(),
        ToyPostProcess(),
        loader,
        {"people": (PeopleEvaluator(), None)},
        device=CPU,
        inspect=seen.append,
    )
    assert metrics["people"]["num_samples"] == length
    assert all(batch.prompts is None for batch in seen)


# --- several processes ---------------------------------------------------------------------------

# Name, samples, rounds of two processes with 4 samples a step.  The last steps have 1 and 3.
TRAININGS = [("even", 8, 1), ("uneven", 9, 1), ("accumulated", 8, 2), ("uneven rounds", 11, 2)]

# One start for all that is asked of two processes: most of the time goes into imports.
TWO_PROCESSES = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}]  # the toys
import json, torch
from pathlib import Path
from toy import *
from util.loss_means import NonFiniteLossError

folder = Path(sys.argv[1])
distributed.initialize("cpu")
processes = distributed.rank(), distributed.world_size()

weights = {{}}
for name, length, rounds in {TRAININGS}:
    own = train_without_dropout(folder / name, processes, rounds, length)
    assert all(torch.equal(other, own) for other in distributed.all_gather_object(own))
    weights[name] = own.tolist()

metrics = evaluate_toy(folder / "evaluate", batch_size=2, processes=processes)
assert all(other == metrics for other in distributed.all_gather_object(metrics))

torch.manual_seed(5)
evaluation = toy_evaluation(folder / "people", 7, processes=processes, dataset=ToyPeopleDataset)
metrics = evaluation.run(ToyPeopleModel())
assert all(other == metrics for other in distributed.all_gather_object(metrics))

prompts = PromptSampler({{"text": 0.5, "scribble": 0.25, "point": 0.25}}, seed=7)
message = ""
try:
    run_toy_training(folder / "stop", 1, ToyModel(spoilt_id=4), processes=processes)
except NonFiniteLossError as error:
    message = str(error)

print(json.dumps({{
    "kinds": [prompts.kind(0, step) for step in range(8)],
    "weights": weights,
    "message": message,
}}))
distributed.shutdown()
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder that two processes wrote to, and what each of them printed at the end."""
    folder = tmp_path_factory.mktemp("two_processes")
    for name in (*(name for name, *_ in TRAININGS), "evaluate", "people", "stop"):
        (folder / name).mkdir()
    results = run_python(["-c", TWO_PROCESSES, folder], processes=2)
    for result in results:
        assert result.returncode == 0, result.stderr
    return folder, [json.loads(result.stdout.splitlines()[-1]) for result in results]


def test_two_processes_draw_the_same_kinds(two_processes):
    _, (first, second) = two_processes
    assert first["kinds"] == second["kinds"]


@pytest.mark.parametrize(("name", "length", "rounds"), TRAININGS)
def test_two_processes_train_as_one_with_twice_the_batch(
    two_processes, tmp_path, name, length, rounds
):
    folder, (together, _) = two_processes
    alone = train_without_dropout(tmp_path, processes=(0, 1), length=length)
    assert together["weights"][name] == pytest.approx(alone.tolist(), rel=1e-5, abs=1e-6)
    records = [read_json_lines(path / "log.txt") for path in (tmp_path, folder / name)]
    for a, b in zip(*records, strict=True):
        assert a["train"] == pytest.approx(b["train"], rel=1e-5)
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


THREE_PROCESSES = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}]
from pathlib import Path
from toy import *
distributed.initialize("cpu")
evaluate_toy(Path(sys.argv[1]), batch_size=2, processes=(distributed.rank(), 3))
distributed.shutdown()
"""


def test_three_processes_give_the_metrics_of_one(tmp_path):
    for result in run_python(["-c", THREE_PROCESSES, tmp_path], processes=3):
        assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "eval.json").read_text())
    assert metrics == evaluate_toy(tmp_path, batch_size=2)


def test_people_are_counted_once_in_two_processes(two_processes):
    folder, _ = two_processes
    metrics = json.loads((folder / "people" / "eval.json").read_text())
    assert metrics["people"]["num_samples"] == 7
