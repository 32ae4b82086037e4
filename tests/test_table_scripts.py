"""scripts/tables/: from a command line to a table, with tiny models on synthetic images."""

from __future__ import annotations

import json
import os
import shutil
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
    result = run_script(4, "--smoke", "--runs", runs, "--output", tmp_path / "trained")
    assert result.returncode == 0, result.stderr
    checkpoint = runs / "text_only" / "checkpoint.pth"
    output, others = tmp_path / "given", tmp_path / "others"
    # A name relative to where the user is.
    arguments = ("--smoke", "--runs", others, "--output", "given", "--checkpoint", checkpoint)
    result = run_script(4, *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    record = read_table(output)
    source = record["runs"]["text_only"]
    assert (source["kind"], source["weights"]["file"]) == ("evaluation", str(checkpoint))
    assert source["weights"]["epochs_done"] == source["weights"]["epochs"]
    assert record["rows"] == read_table(tmp_path / "trained")["rows"]
    assert {path.name for path in others.iterdir()} == {"data"}
    again = run_script(4, *arguments, cwd=tmp_path)
    assert "text_only: evaluated already" in again.stdout


# --- the commands of full runs ---------------------------------------------------------------


STUB = """#!/bin/sh
case "$*" in
    *"table.py given"*) shift 3; printf '%s\\n' "$@"; exit 0 ;;
    *"table.py finished"*) test -f "$3/finished"; exit ;;
    *device_count*) echo 2; exit 0 ;;
esac
echo "$*" >>"$CALLS"
case "$*" in
    *"$FAILS"*) exit "$STATUS" ;;
    *--eval*) ;;
    *main.py*) while [ "$1" != --output_dir ]; do shift; done
        mkdir -p "$2" && touch "$2/log.txt" "$2/finished" ;;
esac
"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Runs a table's script of a repository whose Python only writes down what it is asked."""
    house = tmp_path / "house"
    shutil.copytree(ROOT / "scripts", house / "scripts")
    python = house / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    (house / "swin.pth").write_text("")
    refhuman, coco = house / "data" / "RefHuman", house / "data" / "coco" / "annotations"
    for folder, name in ((refhuman, "RefHuman_val"), (coco, "person_keypoints_val2017")):
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_text("{}")
    calls = house / "calls"

    def run(number, *arguments, fails="no such words", status=1, expected=0):
        calls.write_text("")
        script = house / "scripts" / "tables" / SCRIPTS[number - 1].name
        environment = {"CALLS": str(calls), "FAILS": fails, "STATUS": str(status)}
        environment |= {"SWIN_WEIGHTS": "swin.pth", "PATH": os.environ["PATH"]}
        result = subprocess.run(
            ["bash", str(script), *arguments],
            env=environment, cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == expected, result.stderr
        return calls.read_text().replace(f"{house}/", "").splitlines()

    return run


def test_what_a_training_is_asked(commands):
    training, table = commands(4, "--gpus", "4", "--", "--amp")
    assert training == (
        "-m torch.distributed.run --standalone --nproc_per_node=4 main.py "
        "-c config/ablation/text_only.py --coco_path data/RefHuman "
        "--output_dir outputs/tables/runs/text_only --resume auto --swin_pretrain_path swin.pth "
        "--options batch_size=4 accumulation_steps=1 --amp"
    )
    assert table == ("tools/table.py 4 --runs outputs/tables/runs --output outputs/tables/table04")
    assert commands(4) == [table]  # finished


@pytest.mark.parametrize(
    ("gpus", "start", "batch"),
    [
        ("0", "main.py --device cpu ", "batch_size=4 accumulation_steps=4"),
        ("1", "--nproc_per_node=1 ", "batch_size=4 accumulation_steps=4"),
        ("8", "--nproc_per_node=8 ", "batch_size=2 accumulation_steps=1"),
        ("16", "--nproc_per_node=16 ", "batch_size=1 accumulation_steps=1"),
        ("", "--nproc_per_node=2 ", "batch_size=4 accumulation_steps=2"),  # those that are visible
    ],
)
def test_a_step_has_sixteen_images(commands, gpus, start, batch):
    training, _ = commands(4, *(["--gpus", gpus] if gpus else []))
    assert start in training and training.endswith(f"--options {batch}")


def test_an_evaluation_takes_the_trained_checkpoint(commands):
    training, evaluation, table = commands(9, "--gpus", "1", "--", "--amp")
    assert "-c config/uniphd_coco.py" in training and "--coco_path data/coco" in training
    assert evaluation.endswith(
        "-c config/uniphd_coco.py --coco_path data/RefHuman "
        "--output_dir outputs/tables/runs/uniphd_coco_on_refhuman --eval "
        "--resume outputs/tables/runs/uniphd_coco/checkpoint.pth --dataset_file refhuman"
    )
    assert "9 --runs" in table
    # Table 3 has the same training, whose own evaluation it shows.
    (table,) = commands(3, "--data", "house/data/coco")
    assert table.startswith("tools/table.py 3 ")


def test_with_checkpoints_nothing_is_trained(commands, tmp_path):
    (
        tmp_path / "house" / "data" / "coco" / "annotations" / "person_keypoints_val2017.json"
    ).unlink()
    evaluation, table = commands(9, "--gpus", "0", "--checkpoint", "uniphd_coco=a b.pth")
    given = "outputs/tables/table09/given/uniphd_coco_on_refhuman"
    assert f"--output_dir {given} --eval --resume {tmp_path}/a b.pth" in evaluation
    assert table.endswith(f"--run uniphd_coco_on_refhuman={given}")
    evaluation, table = commands(2, "--gpus", "0", "--checkpoint", "uniphd=a.pth")
    assert "-c config/uniphd.py --coco_path data/RefHuman --output_dir " in evaluation
    assert table.endswith("--run uniphd=outputs/tables/table02/given/uniphd")


def test_an_error_leaves_the_other_rows_and_an_interruption_ends_all(commands):
    lines = commands(10, "--gpus", "0", fails="groups_5.py")
    assert [line.partition("-c ")[2].split()[:1] for line in lines] == [
        ["config/uniphd.py"],
        ["config/ablation/groups_5.py"],
        ["config/ablation/groups_10.py"],
        [],  # the table
    ]
    (interrupted,) = commands(10, "--gpus", "0", fails="groups_5.py", status=130, expected=130)
    assert "groups_5.py" in interrupted


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
