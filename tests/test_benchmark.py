"""The benchmark: turns, floors, other commits, and what its figures are made of."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import benchmark
import pytest
import torch
from benchmarks import checkouts, counting, figures, inputs, plan, turns
from benchmarks.turns import Entry, Measurement, Turns, WorkerError, WorkerProcess
from launch import ROOT

from util.errors import UserError

# A step that writes down when it has its turn, and fails where it is told to.
STEP = """
import os, sys
def prepare(options):
    def say(word):
        with open(options["log"], "a") as file:
            file.write(f"{options['name']} {word} {os.getpid()}\\n")
    say("start")
    if options["fails"] == "prepare":
        print("printed before the end")
        raise ValueError("no such thing")
    done = 0
    def step():
        nonlocal done
        done += 1
        say("round")
        if options["fails"] == f"round {done}":
            sys.exit("gone")
        return options["units"]
    return step
"""


def step_entries(folder, names, fails=None):
    """Entries of the step above; `fails` by name."""
    (folder / "toy_step.py").write_text(STEP)
    return [
        Entry(
            name=name,
            variant=name,
            module="toy_step",
            options={
                "device": "cpu",
                "threads": 1,
                "log": str(folder / "log"),
                "name": name,
                "units": 4,
                "fails": (fails or {}).get(name),
            },
            checkout=ROOT,
            environment={"PYTHONPATH": str(folder)},
        )
        for name in names
    ]


def said(folder):
    """(name, word) in the order in which the steps wrote them; no process of theirs is left."""
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    assert not any(Path(f"/proc/{number}").exists() for *_, number in lines)
    return [(name, word) for name, word, _ in lines]


GENEROUS = 2**40


def test_variants_take_turns_in_an_order_that_alternates(tmp_path):
    entries = step_entries(tmp_path, "ab")
    measured = Turns(entries, rounds=3, warmup=1, memory_bytes=GENEROUS).measure()
    words = said(tmp_path)
    assert words[:4] == [("a", "start"), ("a", "round"), ("b", "start"), ("b", "round")]
    assert "".join(name for name, _ in words[4:]) == "abbaab"
    for measurement in measured:
        assert len(measurement.rounds) == 3 and measurement.units == 4
        assert measurement.peak_bytes > 2**20 and measurement.error is None
    assert figures.ratio(measured[1], measured[0]).paired


def test_workers_that_do_not_fit_together_are_measured_one_by_one(tmp_path):
    measured = Turns(step_entries(tmp_path, "ab"), rounds=1, warmup=1, memory_bytes=2**20).measure()
    assert [name for name, _ in said(tmp_path)] == list("aaabbb")
    assert not figures.ratio(measured[1], measured[0]).paired


def test_those_that_wait_get_a_group_with_the_first(tmp_path, monkeypatch):
    """Room for two workers: the first is there again for the third."""

    class OfOneByte(WorkerProcess):
        def ask(self, *arguments, **details):
            answer = super().ask(*arguments, **details)
            self.held_bytes = 1
            return answer

    monkeypatch.setattr(turns, "WorkerProcess", OfOneByte)
    measured = Turns(step_entries(tmp_path, "abc"), rounds=1, warmup=0, memory_bytes=2).measure()
    assert "".join(name for name, word in said(tmp_path) if word == "start") == "abac"
    assert len(measured[0].rounds) == 2
    assert all(figures.ratio(m, measured[0]).paired for m in measured)


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("prepare", ["'b'", "'prepare': ValueError: no such thing", "printed before the end"]),
        ("round 2", ["'b'", "'round': ended with status 1", "gone"]),
    ],
)
def test_a_failing_worker_is_one_clear_error(tmp_path, moment, words):
    entries = step_entries(tmp_path, "abc", {"b": moment})
    with pytest.raises(WorkerError) as raised:
        Turns(entries, rounds=2, warmup=1, memory_bytes=GENEROUS).measure()
    for word in words:
        assert word in str(raised.value)
    said(tmp_path)


def test_the_others_go_on_where_they_are_to(tmp_path):
    entries = step_entries(tmp_path, "abc", {"b": "round 2"})
    measured = Turns(entries, rounds=2, warmup=1, memory_bytes=GENEROUS, keeps_going=True).measure()
    assert [m.error is None for m in measured] == [True, False, True]
    assert [len(m.rounds) for m in measured] == [2, 0, 2]
    records = [figures.record(m, measured, None) for m in measured]
    text = figures.table(records, "thing")
    assert "| b | failed |" in text and "`b` failed: The worker of 'b'" in text
    said(tmp_path)


def test_no_round_begins_after_the_time_and_no_start_lasts_longer(tmp_path):
    entries = step_entries(tmp_path, "a")
    (one,) = Turns(entries, rounds=50, warmup=0, seconds=1e-9, memory_bytes=GENEROUS).measure()
    assert len(one.rounds) == 1
    for limit in ({"until": 0.0}, {"start_seconds": 0.0}):
        (one,) = Turns(
            entries, rounds=1, memory_bytes=GENEROUS, keeps_going=True, **limit
        ).measure()
        assert "no answer in the time that was left" in one.error and not one.rounds


# --- figures -------------------------------------------------------------------------------------


def measurement(name, rounds, is_older=False, variant=None):
    entry = Entry(name, variant or name, "", {}, ROOT, is_older=is_older)
    return Measurement(entry, dict(rounds), units=1, peak_bytes=3 * 2**20)


def test_ratios_are_those_of_the_rounds():
    # The machine slows down by 10: the medians' quotient would be 2.5.
    slow = measurement("slow", {1: 2.0, 2: 20.0, 3: 30.0})
    fast = measurement("fast", {1: 1.0, 2: 8.0, 3: 10.0})
    assert figures.ratio(slow, fast) == figures.Ratio(2.5, 2.0, 3.0, paired=True)
    elsewhere = measurement("elsewhere", {7: 4.0})
    assert figures.ratio(elsewhere, fast) == figures.Ratio(0.5, 0.5, 0.5, paired=False)
    assert figures.ratio(measurement("none", {}), fast) is None


def test_tables_have_ratios_first_and_what_the_document_needs():
    before = measurement("647b47f: x", {1: 2.0, 2: 4.0}, is_older=True, variant="x")
    now = measurement("x", {1: 1.0, 2: 1.0})
    new = measurement("y", {1: 0.5, 2: 0.5})
    all_three = [before, now, new]
    records = [figures.record(m, all_three, f) for m, f in zip(all_three, [0.25] * 3, strict=True)]
    assert records[1]["ratio_to_older"]["median"] == pytest.approx(0.375)
    assert records[2]["ratio_to_older"] is None
    row = figures.table(records, "image").splitlines()[3]
    assert row.split(" | ")[:3] == ["| x", "0.38 (0.25 to 0.50)", "0.38 (0.25 to 0.50)"]
    assert row.endswith("| 1 s | 1 s to 1 s | 1 | 3 | 250 ms | 4.0 x |")
    assert figures.summary("forward", records, "image", "647b47f") == [
        "| forward, x (per image) | 3 s | 1 s | 0.38 (0.25 to 0.50) | 250 ms | 4.0 x |"
    ]
    assert "| none | - |" in figures.table([figures.record(now, [now], None)], "image")


# --- floors --------------------------------------------------------------------------------------

RATES = {"flops": {"float32": 1e9, "bfloat16": 4e9}, "bytes": 1e6}


def test_the_floor_of_products_is_the_longer_of_arithmetic_and_memory():
    large, small = torch.randn(512, 256), torch.randn(2, 256)
    weight = torch.randn(1024, 256)

    def step():
        with torch.inference_mode():
            torch.nn.functional.linear(large, weight).relu().sum()  # what follows counts nothing
            torch.nn.functional.linear(small, weight)
        return 2

    found = counting.floor(step, {**RATES, "bytes": 1e7})
    flops = [2 * 512 * 256 * 1024, 2 * 2 * 256 * 1024]
    sizes = [4 * (512 * 256 + 1024 * 256 + 512 * 1024), 4 * (2 * 256 + 1024 * 256 + 2 * 1024)]
    assert found["flops"] == {"float32": sum(flops)} and found["bytes"] == sum(sizes)
    longer = [max(f / 1e9, s / 1e7) for f, s in zip(flops, sizes, strict=True)]
    assert longer[0] == sizes[0] / 1e7 and found["seconds"] == pytest.approx(sum(longer) / 2)
    step.extra_bytes = 5 * 10**6
    assert counting.floor(step, {**RATES, "bytes": 1e7})["seconds"] == pytest.approx(
        (sum(longer) + 0.5) / 2
    )


def test_the_floor_knows_autocast_the_operator_and_what_is_compiled():
    from benchmarks import operator

    options = {**operator.DEFAULTS, "device": "cpu", "threads": 1, "shape": "decoder"}
    found = counting.floor(operator.prepare({**options, "seconds": 1e-9}), RATES)
    samples = 360 * 8 * 4 * 4 * 32
    assert found["flops"] == {"float32": (8 + 24) * samples}
    layer = torch.nn.Linear(64, 64)
    compiled = torch.compile(layer, backend="inductor")

    def step():
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            compiled(torch.ones(8, 64))
        return 1

    assert counting.floor(step, RATES)["flops"] == {"bfloat16": 2 * 8 * 64 * 64}


def test_the_floor_knows_onednns_packed_linears():
    weight = torch.ops.mkldnn._reorder_linear_weight(torch.randn(48, 64), 8)

    def step():
        torch.ops.mkldnn._linear_pointwise(torch.ones(8, 64), weight, None, "relu", [], "")
        return 1

    found = counting.floor(step, RATES)
    assert found["flops"] == {"float32": 2 * 8 * 64 * 48}
    assert found["bytes"] == 4 * (8 * 64 + 48 * 64 + 8 * 48)


def test_floors_are_shared_by_variants_that_do_the_same_work(monkeypatch):
    common = {"device": "cpu", "threads": 1}
    entries = plan.entries("forward", common, ROOT, older=("old", Path("/older")))
    assert [e.name for e in entries[:4]] == ["old: formula", "formula", "old: compiled", "compiled"]
    assert entries[0].checkout == Path("/older") and entries[0].options == entries[1].options
    assert not {"tf32", "torch-compile"} & {entry.variant for entry in entries}
    counted = plan.counted("forward", entries)
    assert [entry.name for entry in counted] == ["compiled", "compiled-bfloat16"]
    measurements = [Measurement(entry) for entry in entries]
    for m in measurements:
        if m.entry in counted:
            m.floor = {"seconds": 1.0 if m.entry.options["amp"] == "off" else 0.5}
    assert plan.floors("forward", measurements) == [1.0] * 4 + [0.5] * 2 + [1.0] * 2
    assert plan.floors("epoch", measurements) == [None] * 8
    monkeypatch.setattr(plan.load("forward"), "FLOOR", "compiled")
    measurements[3].rounds = {1: 3.0, 2: 5.0}
    assert plan.floors("forward", measurements) == [4.0] * 8


# --- steps ---------------------------------------------------------------------------------------

PRESENT = [w for w in benchmark.WHATS if (ROOT / "tools" / "benchmarks" / f"{w}.py").is_file()]


@pytest.mark.parametrize("what", PRESENT)
def test_every_step_keeps_the_contract(what):
    module = plan.load(what)
    assert callable(module.prepare) and module.UNIT
    assert set(module.OLDER) <= set(module.VARIANTS)
    for variant in module.VARIANTS.values():
        unknown = set(variant) - set(module.DEFAULTS) - {"amp"} - set(plan.ABOUT_A_VARIANT)
        assert unknown <= {"own_settings"}, unknown
    json.dumps([module.DEFAULTS, module.VARIANTS])
    floor = getattr(module, "FLOOR", None)
    assert floor in (None, "counted", *module.VARIANTS)


TINY = {
    "device": "cpu",
    "threads": 1,
    "amp": "off",
    "config_file": "config/uniphd_tiny.py",
    "height": 64,
    "width": 64,
    "batch_size": 2,
}


def prepared(what, **options):
    module = plan.load(what)
    return module.prepare({**module.DEFAULTS, **TINY, **options})


@pytest.fixture
def at_home(monkeypatch):
    """Workers run in the checkout's folder."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(inputs.OPERATOR_VARIABLE, "compiled")  # restored afterwards


@pytest.mark.parametrize(
    ("what", "options", "units"),
    [
        ("forward", {"operator": "pytorch"}, 2),
        ("train", {"steps": 2}, 4),
        ("train", {"form": "plain"}, 2),
        ("predict", {"settings": {"eval_max_side": 64}}, 1),
        ("inference", {}, 2),
        ("inference", {"form": "plain"}, 2),
        ("epoch", {"steps": 1, "settings": {"batch_size": 2, "num_workers": 0}}, 2),
    ],
)
def test_a_round_does_its_units(at_home, what, options, units):
    assert prepared(what, **options)() == units
    assert os.environ[inputs.OPERATOR_VARIABLE] == options.get("operator", "compiled")


def test_a_training_round_trains_and_options_reach_the_model(at_home, monkeypatch):
    built = []
    build = inputs.build

    def remember(options):
        built.append(build(options))
        return built[-1]

    train = plan.load("train")
    monkeypatch.setattr(train, "build", remember)
    options = {**train.VARIANTS["checkpointing"], "amp": "bfloat16"}
    step = prepared("train", **options)
    model = built[0][0]
    before = copy.deepcopy(model.state_dict())
    floor = counting.floor(step, RATES)
    assert "bfloat16" in floor["flops"]
    changed = [n for n, value in model.state_dict().items() if not torch.equal(value, before[n])]
    assert len(changed) > 100
    assert model.encoder.use_checkpointing
    assert step.extra_bytes == 28 * sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_compiled_forward_is_compiled(at_home, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, backend: asked.append(backend) or model)
    prepared("forward", compile="inductor")()
    assert asked == ["inductor"]


# --- the program ---------------------------------------------------------------------------------


def run_benchmark(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
    return benchmark.main()


SMALL = ("-c", ROOT / "config" / "uniphd_tiny.py", "--side", 64, "--threads", 1, "--device", "cpu")


def test_the_program_prints_and_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    out = ("--output", tmp_path / "x.json", "--markdown", tmp_path / "x.md")
    few = ("--variants", "compiled", "--rounds", 2, "--amp", "bfloat16")
    assert run_benchmark(monkeypatch, *SMALL, *few, *out) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "x.md").read_text() and "### forward" in printed
    report = json.loads((tmp_path / "x.json").read_text())
    (record,) = report["steps"]["forward"]["variants"]
    assert len(record["rounds"]) == 2 and record["seconds"]["median"] > 0
    assert record["options"]["amp"] == "bfloat16" and record["options"]["height"] == 64
    assert record["options"]["config_file"] == "config/uniphd_tiny.py"
    assert 0 < record["floor_seconds"] < record["seconds"]["median"]
    rates = report["machine"]["rates"]
    assert rates["flops"]["float32"] > 1e8 and rates["bytes"] > 1e7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--what", "forwards"], "unknown step 'forwards'; expected some of forward, train"),
        (["--variants", "no"], "--variants: unknown 'no'; expected some of compiled"),
        (["--variants", "tf32", "--device", "cpu"], "nothing to measure for 'forward' on cpu"),
        (["--rounds", "0"], "--rounds has to be at least 1"),
        (["--side", "1", "2", "3"], "--side takes one number of pixels, or height and width"),
        (["-c", "nowhere.py"], "--config_file: there is no"),
        (["--against", "no-such-commit"], "no-such-commit"),
    ],
)
def test_what_cannot_be_measured_is_said(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr(benchmark, "measure_rates", lambda options: RATES)
    assert run_benchmark(monkeypatch, *arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_another_commit_is_measured_in_the_same_run(tmp_path, monkeypatch, capsys):
    few = ("--variants", "compiled", "--rounds", 1, "--against", "HEAD")
    before = checkouts.git(ROOT, "worktree", "list")
    assert run_benchmark(monkeypatch, *SMALL, *few) == 0
    assert checkouts.git(ROOT, "worktree", "list") == before
    printed = capsys.readouterr().out
    assert "| HEAD: compiled | 1.00" in printed and "### Before and now" in printed


def repository(folder):
    """A repository with a file that has changed since its first commit."""
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    checkouts.git(folder, "config", "user.email", "nobody@example.org")
    checkouts.git(folder, "config", "user.name", "nobody")
    for text in ("before", "now"):
        (folder / "file").write_text(text)
        checkouts.git(folder, "add", "file")
        checkouts.git(folder, "commit", "-q", "-m", text)
    return folder


def test_a_checkout_is_of_its_commit_and_leaves_nothing(tmp_path):
    folder = repository(tmp_path / "repository")
    with pytest.raises(KeyboardInterrupt), checkouts.checkout(folder, "HEAD~1") as path:
        assert (path / "file").read_text() == "before"
        raise KeyboardInterrupt
    assert not path.exists() and not path.parent.exists()
    assert len(checkouts.git(folder, "worktree", "list").splitlines()) == 1
    assert checkouts.describe(folder) == checkouts.git(folder, "rev-parse", "--short", "HEAD")
    (folder / "file").write_text("changed")
    assert checkouts.describe(folder).endswith("+")
    with pytest.raises(UserError, match="no-such"), checkouts.checkout(folder, "no-such"):
        pass
