"""scripts/tables/: from a command line to a table, with tiny models on synthetic images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
from launch import ROOT
from tables.published import RUNS, TABLES

SCRIPTS = sorted((ROOT / "scripts" / "tables").glob("table*.sh"))

# Those that are run whenever the tests are; the others take longer.
FAST = (1, 4)


def command(number):
    return ["bash", str(SCRIPTS[number - 1])]


def run_script(number, *arguments, timeout=600, **options):
    """What became of a table's script; `options` are those of `subprocess.run`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command(number), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        **options,
    )


def read_table(folder):
    return json.loads((folder / "table.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the runs, shared by the tables as they are for a user."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize(
    "number", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in TABLES]
)
def test_a_smoke_run_ends_in_its_table(number, runs, tmp_path):
    output = tmp_path / "table"
    result = run_script(number, "--smoke", "--runs", runs, "--output", output)
    assert result.returncode == 0, result.stderr
    record, table = read_table(output), TABLES[number]
    assert (record["table"], record["smoke"], record["missing"]) == (number, True, [])
    assert "SMOKE RUN" in result.stdout and "SMOKE RUN" in (output / "table.md").read_text()
    assert (output / "table.png").read_bytes().startswith(b"\x89PNG")
    for row, published in zip(record["rows"], table.rows, strict=True):
        assert row["status"] == ("quoted" if published.run is None else "done")
        for cell, figure in zip(row["cells"].values(), published.published, strict=True):
            assert cell["published"] == figure
            assert (cell["ours"] is None) == (figure is None or published.run is None)
    assert set(record["runs"]) == set(table.runs())
    for name, source in record["runs"].items():
        if name in RUNS and RUNS[name].evaluates is None:
            assert source["kind"] == "training" and source["steps"] > 0

    if number == 4:
        # What is finished is not run again.
        again = run_script(number, "--smoke", "--runs", runs, "--output", output)
        assert again.returncode == 0, again.stderr
        assert "text_only: finished already" in again.stdout
        assert len(json.loads((runs / "text_only" / "run.json").read_text())) == 1
        assert read_table(output) == record


@pytest.mark.slow
def test_an_interrupted_run_goes_on(tmp_path):
    runs = tmp_path / "runs"
    arguments = [*command(4), "--smoke", "--runs", str(runs), "--output", str(tmp_path / "table")]
    arguments += ["--", "--options", "epochs=6", "checkpoint_steps=1"]
    script = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    log = runs / "text_only" / "log.txt"
    until = time.monotonic() + 300
    while not log.is_file() and time.monotonic() < until:
        time.sleep(0.1)
    os.killpg(script.pid, signal.SIGINT)  # as Ctrl-C does
    _, errors = script.communicate(timeout=100)
    assert script.returncode == 130, errors
    assert not (tmp_path / "table").joinpath("table.json").exists()
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    entries = json.loads((runs / "text_only" / "run.json").read_text())
    assert [entry["exit"] == "finished" for entry in entries] == [False, True]
    assert entries[1]["resumes"] is not None
    assert len(log.read_text().splitlines()) == 6


@pytest.mark.slow
def test_given_checkpoints_are_evaluated_and_nothing_is_trained(runs, tmp_path):
    result = run_script(11, "--smoke", "--runs", runs, "--output", tmp_path / "trained")
    assert result.returncode == 0, result.stderr
    checkpoint = runs / "uniphd" / "checkpoint.pth"
    output, others = tmp_path / "given", tmp_path / "others"
    # A name relative to where the user is.
    arguments = ("--smoke", "--runs", others, "--output", "given", "--checkpoint", checkpoint)
    result = run_script(11, *arguments, cwd=tmp_path)
    assert result.returncode == 1
    record = read_table(output)
    assert [row["status"] for row in record["rows"]] == ["done", "missing", "missing"]
    assert [lack["reason"] for lack in record["missing"]] == ["not run", "not run"]
    source = record["runs"]["uniphd"]
    assert (source["kind"], source["weights"]["file"]) == ("evaluation", str(checkpoint))
    assert source["weights"]["epochs_done"] == source["weights"]["epochs"]
    assert record["rows"][0]["cells"] == read_table(tmp_path / "trained")["rows"][0]["cells"]
    assert {path.name for path in others.iterdir()} == {"data"}
    again = run_script(11, *arguments, cwd=tmp_path)
    assert "uniphd: evaluated already" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--foo", "unknown argument '--foo'"),
        ("folder", "unknown argument 'folder'"),
        ("--data", "--data needs a value"),
        ("--output --smoke", "--output needs a value"),
        ("--gpus 3", "16 images per step do not divide among '3' GPUs"),
        ("--gpus many", "16 images per step do not divide among 'many' GPUs"),
        ("--checkpoint", "--checkpoint needs a file"),
        ("--checkpoint --smoke", "--checkpoint needs a file"),
        ("--gpus 0 --data nothing", "nothing/RefHuman_val.json does not exist"),
    ],
)
def test_wrong_arguments_are_one_message(tmp_path, arguments, message):
    result = run_script(2, *arguments.split(), cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert result.stderr.endswith("(table02_refhuman.sh --help explains.)\n")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_for_nothing_is_refused(tmp_path):
    result = run_script(4, "--gpus", "0", "--checkpoint", "gone.pth", cwd=tmp_path)
    assert result.returncode == 2
    assert f"{tmp_path}/gone.pth: no such file (for text_only)" in result.stderr


def test_a_training_needs_imagenet_weights(tmp_path):
    (tmp_path / "RefHuman_val.json").write_text("{}")
    arguments = ("--gpus", "0", "--data", ".", "--runs", "runs", "--output", "out")
    swin = {**os.environ, "SWIN_WEIGHTS": str(tmp_path / "swin.pth")}
    result = subprocess.run(
        [*command(4), *arguments], capture_output=True, text=True, cwd=tmp_path, env=swin
    )
    assert result.returncode == 2
    assert "swin.pth does not exist" in result.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", TABLES)
def test_help_and_grammar(number):
    subprocess.run(["bash", "-n", *command(number)[1:]], check=True)
    result = run_script(number, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"Table {number}: ")
    assert f"outputs/tables/table{number:02d}" in result.stdout
    for name in TABLES[number].trainings():
        assert name in result.stdout
