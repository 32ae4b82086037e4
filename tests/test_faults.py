"""What can befall a training: it loses nothing but the steps since its last checkpoint."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from launch import ROOT, run_python
from test_trainer import assert_same_state, make
from toy import make_toy_trainer, run_toy_training

from util import checkpoint, files
from util.command_line import run_program
from util.errors import UserError
from util.logging import read_json_lines
from util.optimization import Optimization
from util.run_folder import read_newest
from util.stopping import RunStoppedError

pytestmark = pytest.mark.usefixtures("one_thread")


# A checkpoint after every step, of averaged weights as well.
EVERY_STEP = {"steps": 1, "ema_decay": 0.9}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The trainer of a run that nothing happened to, and its folder."""
    folder = tmp_path_factory.mktemp("straight")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = run_toy_training(folder, 3, **EVERY_STEP)
    torch.set_num_threads(threads)
    return trainer, folder


def resume(folder, epochs=3, **settings):
    """Go on with the newest whole checkpoint."""
    newest, _ = read_newest(folder, checkpoint.load)
    return run_toy_training(folder, epochs, resume=newest, **{**EVERY_STEP, **settings})


def assert_as_if_nothing_had_happened(folder, straight, **settings):
    resumed = resume(folder, **settings)
    trainer, expected = straight
    assert_same_state(trainer, resumed)
    for name, value in trainer.average.model.state_dict().items():
        assert torch.equal(value, resumed.average.model.state_dict()[name])
    records = [read_json_lines(path / "log.txt") for path in (expected, folder)]
    assert len(records[1]) == 3
    for a, b in zip(*records, strict=True):
        kept = ("epoch", "step", "train", "lr", "eval", "eval_average")
        assert [a[key] for key in kept] == [b[key] for key in kept]


def at_step(monkeypatch, step, action):
    """Have something happen as soon as a step of the run has changed the weights."""
    original = Optimization.step

    def stepped(optimization, epoch):
        numbers = original(optimization, epoch)
        if optimization.steps == step:
            action()
        return numbers

    monkeypatch.setattr(Optimization, "step", stepped)


# --- killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processes", "workers", "kills"),
    [
        (1, 0, 4),
        (2, 0, 2),
        (1, 1, 1),
        pytest.param(1, 0, 20, marks=pytest.mark.slow),
        pytest.param(2, 0, 20, marks=pytest.mark.slow),
        pytest.param(1, 2, 20, marks=pytest.mark.slow),
        pytest.param(2, 1, 20, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments(tmp_path, processes, workers, kills):
    arguments = ["tests/fault_runs.py", tmp_path, processes, workers, kills]
    (result,) = run_python(arguments, timeout=3000)
    assert result.returncode == 0, result.stderr
    runs = json.loads(result.stdout.splitlines()[-1])["results"]
    assert len(runs) == kills
    for run in runs:
        assert run["killed"][0] == -signal.SIGKILL, run
        assert run["resumed"] == [0] * processes, run
        assert (run["difference"], run["left"]) == ("", []), run


# --- asked to end --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (signal.SIGTERM, 1),
        (signal.SIGUSR1, 7),
        (signal.SIGINT, 10),  # the last step of the second epoch
    ],
)
def test_a_signal_ends_a_run_in_order(tmp_path, monkeypatch, straight, number, step, capsys):
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(RunStoppedError, match=rf"by {number.name}: all of it.*--resume auto"):
            run_toy_training(tmp_path, 3, ema_decay=0.9)
    assert signal.getsignal(number) is handler
    assert "once more ends at once" in capsys.readouterr().err
    saved = checkpoint.load(tmp_path / "checkpoint.pth")
    assert step <= saved["step"] <= step + 2
    assert_as_if_nothing_had_happened(tmp_path, straight)


def test_a_signal_in_an_evaluation_ends_it_at_once(tmp_path, monkeypatch, straight):
    with monkeypatch.context() as patch:
        from toy import ToyPostProcess

        def killed(*arguments):
            os.kill(os.getpid(), signal.SIGUSR1)
            return original(*arguments)

        original = ToyPostProcess.forward
        patch.setattr(ToyPostProcess, "forward", killed)
        with pytest.raises(RunStoppedError, match="in the evaluation after epoch 0"):
            run_toy_training(tmp_path, 3, **EVERY_STEP)
    assert not (tmp_path / "eval.json").exists()
    assert_as_if_nothing_had_happened(tmp_path, straight)


TWICE = """
import os, signal, sys, time
sys.path[:0] = ["tests"]
from pathlib import Path
from test_faults import at_step, run_toy_training
import pytest
def twice():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # torchrun's, of the same Ctrl-C: does not count
    print("still here", flush=True)
    time.sleep(1.2)
    os.kill(os.getpid(), signal.SIGTERM)
    print("not here", flush=True)
at_step(pytest.MonkeyPatch(), 7, twice)
run_toy_training(Path(sys.argv[1]), 3, steps=1, ema_decay=0.9)
"""


def test_a_second_signal_ends_at_once(tmp_path, straight):
    (result,) = run_python(["-c", TWICE, tmp_path])
    assert result.returncode == -signal.SIGTERM, result.stderr
    assert result.stdout.endswith("still here\n")
    assert_as_if_nothing_had_happened(tmp_path, straight)


WHOLE_GROUP = """
import os, signal, sys
sys.path[:0] = ["tests"]
from pathlib import Path
from test_faults import at_step, run_toy_training
from util.stopping import RunStoppedError
import pytest
os.setpgrp()
at_step(pytest.MonkeyPatch(), 7, lambda: os.killpg(0, signal.SIGTERM))
try:
    run_toy_training(Path(sys.argv[1]), 3, steps=1, ema_decay=0.9, num_workers=2)
except RunStoppedError as error:
    print(error)
"""


def test_a_signal_to_the_loaders_workers_as_well(tmp_path, straight):
    """As torchrun and SLURM send it: to all processes."""
    (result,) = run_python(["-c", WHOLE_GROUP, tmp_path])
    assert result.returncode == 0, result.stderr
    assert "Ended within epoch 1" in result.stdout
    assert_as_if_nothing_had_happened(tmp_path, straight)


ONE_OF_TWO = """
import os, signal, sys
sys.path[:0] = ["tests"]
from pathlib import Path
from test_faults import at_step, run_toy_training
from util import distributed
from util.stopping import RunStoppedError
import pytest
distributed.initialize("cpu")
if distributed.rank() == 1:
    at_step(pytest.MonkeyPatch(), 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
try:
    run_toy_training(Path(sys.argv[1]), 3, processes=(distributed.rank(), 2), batch_size=1)
except RunStoppedError as error:
    print(error)
distributed.shutdown()
"""


def test_a_signal_to_one_of_two_processes_ends_both_at_the_same_step(tmp_path):
    results = run_python(["-c", ONE_OF_TWO, tmp_path], processes=2)
    messages = [result.stdout.splitlines()[-1] for result in results]
    assert [result.returncode for result in results] == [0, 0], results
    assert messages[0] == messages[1]
    assert messages[0].startswith("Ended within epoch 1, after 4 of its steps by SIGTERM")
    assert checkpoint.load(tmp_path / "checkpoint.pth")["within"]["step"] == 4


# --- files ---------------------------------------------------------------------------------------


def stopped_after(folder, monkeypatch, step):
    """A run that ended a little after a step."""
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(RunStoppedError):
            run_toy_training(folder, 3, **EVERY_STEP)


@pytest.mark.parametrize("damage", ["truncated", "a flipped bit", "empty"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, monkeypatch, straight, damage, capsys):
    stopped_after(tmp_path, monkeypatch, 8)
    newest, state = read_newest(tmp_path, checkpoint.load)
    content = bytearray(newest.read_bytes())
    if damage == "a flipped bit":
        # Between the parts there is padding, where a change changes nothing.
        content[content.index(state["model"]["colors.weight"].numpy().tobytes())] ^= 1
    newest.write_bytes({"truncated": content[:-1000], "empty": b""}.get(damage, content))
    with pytest.raises(UserError, match="damaged|truncated"):
        checkpoint.load(newest)
    _, earlier = read_newest(tmp_path, checkpoint.load)
    assert earlier["step"] == state["step"] - 1
    assert_as_if_nothing_had_happened(tmp_path, straight)


def test_only_damaged_checkpoints_are_an_error(tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes(b"PK")
    with pytest.raises(UserError, match="none of its 1 checkpoints can be read"):
        read_newest(tmp_path, checkpoint.load)
    assert read_newest(tmp_path / "none", checkpoint.load) is None


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    path, damaged = tmp_path / "a.pth", tmp_path / "b.pth"
    checkpoint.save(path, {"model": {"a": torch.arange(20.0)}, "epoch": 3, "config": {"x": [1]}})
    content = path.read_bytes()
    found = 0
    for place in range(0, 8 * len(content), 5):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        damaged.write_bytes(changed)
        try:
            state = checkpoint.read_file(damaged)
        except UserError:
            found += 1
            continue
        assert torch.equal(state["model"]["a"], torch.arange(20.0)), place
        assert (state["epoch"], state["config"]) == (3, {"x": [1]}), place
    assert found > len(content) / 2


def test_the_clock_does_not_say_which_checkpoint_is_the_newest(tmp_path, monkeypatch):
    stopped_after(tmp_path, monkeypatch, 8)
    newest, state = read_newest(tmp_path, checkpoint.load)
    for path in tmp_path.glob("checkpoint*.pth"):
        os.utime(path, (2e9, 2e9))
    os.utime(newest, (0, 0))
    assert read_newest(tmp_path, checkpoint.load)[1]["step"] == state["step"]


STAGES = [(torch, "save"), (files.os, "fsync"), (files.os, "replace"), (files.shutil, "copyfile")]


@pytest.mark.parametrize(("owner", "name"), STAGES, ids=[name for _, name in STAGES])
def test_a_full_disk_at_every_stage_of_saving(tmp_path, monkeypatch, straight, owner, name):
    run_toy_training(tmp_path, 1, **EVERY_STEP)
    calls = 0

    def full(*arguments, **keywords):
        nonlocal calls
        calls += 1
        if calls > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments, **keywords)

    original = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        if name == "copyfile":  # a file system where a file has one name
            patch.setattr(files.os, "link", no_links)
        with pytest.raises((UserError, OSError), match="No space left") as error:
            resume(tmp_path)
    assert "checkpoint" in str(error.value) or "log.txt" in str(error.value)
    assert not list(tmp_path.glob(".[0-9]*"))
    assert_as_if_nothing_had_happened(tmp_path, straight)


def no_links(*names):
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_tiny_file_system(tmp_path, straight):
    small = make(tmp_path / "small")
    if os.system(f"mount -t tmpfs -o size=100k tmpfs {small} 2>/dev/null") != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(UserError, match="cannot be written: No space left on device"):
            run_toy_training(small, 3, **EVERY_STEP, keep_checkpoints=20)
        for path in sorted(small.glob("checkpoint_step*"))[:-1]:
            path.unlink()
        assert_as_if_nothing_had_happened(small, straight, keep_checkpoints=1, every=0)
    finally:
        os.system(f"umount {small}")


def test_half_written_files_of_a_killed_run_go(tmp_path):
    left = tmp_path / ".4711.checkpoint.pth"
    left.write_bytes(b"half")
    mine = tmp_path / ".notes"
    mine.write_text("mine")
    run_toy_training(tmp_path, 1)
    assert mine.exists() and not left.exists()


def test_two_runs_in_one_folder(tmp_path):
    first = make_toy_trainer(tmp_path, 1)
    with pytest.raises(UserError, match=rf"another run is training.*process {os.getpid()}\)"):
        make_toy_trainer(tmp_path, 1)
    first.run()
    make_toy_trainer(tmp_path, 1, overwrite=True).run()


def test_a_run_does_not_go_on_in_the_folder_of_another(tmp_path):
    for name in "ab":
        run_toy_training(make(tmp_path / name), 1)
    with pytest.raises(UserError, match="b holds a training already.*a checkpoint of this folder"):
        make_toy_trainer(tmp_path / "b", 2, resume=tmp_path / "a" / "checkpoint.pth")


def test_a_run_goes_on_elsewhere_from_within_an_epoch(tmp_path, monkeypatch, straight):
    stopped_after(make(tmp_path / "a"), monkeypatch, 7)
    trainer = run_toy_training(
        make(tmp_path / "b"), 3, resume=tmp_path / "a" / "checkpoint.pth", **EVERY_STEP
    )
    assert_same_state(straight[0], trainer)
    records = [read_json_lines(path / "log.txt") for path in (straight[1], tmp_path / "b")]
    assert [record["train"] for record in records[1]] == [r["train"] for r in records[0]]


# --- when and what to save -----------------------------------------------------------------------


def test_only_the_newest_checkpoints_stay(tmp_path):
    run_toy_training(tmp_path, 2, steps=2, keep_checkpoints=3, every=0)
    names = sorted(path.name for path in tmp_path.glob("checkpoint_step*"))
    assert names == [f"checkpoint_step{step:08d}.pth" for step in (7, 9, 10)]
    newest = (tmp_path / "checkpoint_step00000010.pth").stat()
    assert (tmp_path / "checkpoint.pth").stat().st_ino == newest.st_ino  # one file, two names


def test_checkpoints_by_time(tmp_path, monkeypatch):
    steps = []
    original = checkpoint.save

    def saved(path, state):
        steps.append(state["step"])
        original(path, state)

    now = [1000.0]  # seconds; nothing but step 2 takes any
    monkeypatch.setattr("util.checkpoint_files.save", saved)
    monkeypatch.setattr("trainer.time", SimpleNamespace(monotonic=lambda: now[0]))
    at_step(monkeypatch, 2, lambda: now.append(now.pop() + 61))
    run_toy_training(tmp_path, 2, minutes=1, eval_every=0, every=0)
    # It is late after step 2; the wish travels with the losses of the third, which are looked at
    # with the fourth.
    assert steps == [4, 5, 10]


def test_after_a_run_has_gone_back_later_checkpoints_go(tmp_path):
    run_toy_training(tmp_path, 3, keep_checkpoints=9)
    run_toy_training(tmp_path, 2, resume=tmp_path / "checkpoint0001.pth", keep_checkpoints=9)
    run_toy_training(
        tmp_path, 3, resume=tmp_path / "checkpoint_step00000005.pth", steps=1, keep_checkpoints=2
    )
    names = sorted(path.name for path in tmp_path.glob("checkpoint_step*"))
    assert names == [f"checkpoint_step{step:08d}.pth" for step in (14, 15)]


def test_averaged_weights_are_evaluated_and_decide_which_is_best(tmp_path):
    trainer = run_toy_training(tmp_path, 3, ema_decay=0.5)
    saved = checkpoint.load(tmp_path / "checkpoint.pth")
    assert saved["average"]["steps"] == 15
    averaged = trainer.average.model.state_dict()
    assert any(not torch.equal(averaged[name], value) for name, value in saved["model"].items())
    records = read_json_lines(tmp_path / "log.txt")
    assert json.loads((tmp_path / "eval_average.json").read_text()) == records[-1]["eval_average"]
    best = max(records, key=lambda record: record["eval_average"]["scribble"]["keypoint_ap"])
    assert checkpoint.load(tmp_path / "checkpoint_best.pth")["epoch"] == best["epoch"]
    without = tmp_path / "without"
    run_toy_training(make(without), 1)
    with pytest.raises(UserError, match="no averaged weights.*ema_decay=0"):
        make_toy_trainer(without, 2, resume=without / "checkpoint.pth", ema_decay=0.5)


def test_other_processes_go_on_with_the_same_global_batches(tmp_path, monkeypatch):
    """What two processes began, one goes on with: two rounds instead of two processes."""
    script = ONE_OF_TWO.replace("batch_size=1", "batch_size=1, length=11")
    two, one = make(tmp_path / "two"), make(tmp_path / "one")
    for result in run_python(["-c", script, two], processes=2):
        assert result.returncode == 0, result.stderr
    resumed = run_toy_training(
        two, 3, batch_size=1, length=11, resume=read_newest(two, checkpoint.load)[0]
    )
    alone = run_toy_training(one, 3, batch_size=1, length=11, accumulation_steps=2)
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert resumed.optimization.steps == alone.optimization.steps == 18


@pytest.mark.slow
def test_one_of_two_machines_is_taken_away(tmp_path):
    """Two agents of torchrun on loopback; the one that is left begins again and goes on alone."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc_per_node=1"]
    command += ["--max-restarts=3", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"]
    command += ["--rdzv-id=1", "--rdzv-conf=join_timeout=60,last_call_timeout=5"]
    command += ["tests/elastic_run.py", str(make(tmp_path / "elastic"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT}/tests"}
    logs = [tmp_path / "first.txt", tmp_path / "second.txt"]
    agents = []
    for log in logs:
        with open(log, "w") as file:
            agents.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=file, stderr=file,
                    start_new_session=True,
                )
            )  # fmt: skip
        time.sleep(3)  # the first keeps the rendezvous
    try:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "elastic").glob("checkpoint_step*"))) < 2:
            assert time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.2)
        os.killpg(agents[1].pid, signal.SIGKILL)  # the agent, and with it its worker
        (worker,) = re.findall(r"process (\d+): \d of 2", logs[1].read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(worker), signal.SIGKILL)
        assert agents[0].wait(timeout=240) == 0, logs[0].read_text()
    finally:
        for agent in agents:
            agent.kill()
    assert re.search(r"process \d+: 0 of 1", logs[0].read_text())
    alone = run_toy_training(
        make(tmp_path / "alone"), 3, batch_size=2, accumulation_steps=2, length=24, eval_every=0
    )
    saved = checkpoint.load(tmp_path / "elastic" / "checkpoint.pth")
    assert (saved["epoch"], saved["step"]) == (2, alone.optimization.steps)
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(saved["model"][name], value, rtol=1e-5, atol=1e-6)


# --- faults outside of the program ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            "DataLoader worker (pid 27462) is killed by signal: Killed. ",
            ["process 27462: is killed by signal: Killed", "num_workers", "--resume auto"],
        ),
        (
            "DataLoader worker (pid(s) 12, 13) exited unexpectedly",
            ["process 12, 13: exited unexpectedly", "--resume auto"],
        ),
        (
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [::1]:44428: "
            "Connection reset by peer. This is typically caused by a remote worker hanging",
            ["another process of this run ended", "Connection reset by peer)", "--resume auto"],
        ),
    ],
)
def test_faults_outside_are_one_message(message, words, capsys):
    def program():
        raise RuntimeError(message)

    assert run_program(program) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert "Traceback" not in error and error.count("error: ") == 1


# In a program of its own: PyTorch remembers the death of a worker for the whole process.
KILLED_WORKER = """
import os, signal, sys
sys.path[:0] = ["tests"]
from pathlib import Path
from test_faults import at_step, make_toy_trainer
from util.command_line import run_program
import pytest
trainer = make_toy_trainer(Path(sys.argv[1]), 3, num_workers=1, steps=1, ema_decay=0.9)
def kill():
    (worker,) = trainer.loader._iterator._workers
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
at_step(pytest.MonkeyPatch(), 7, kill)
sys.exit(run_program(trainer.run))
"""


def test_a_killed_loader_worker(tmp_path, straight):
    (result,) = run_python(["-c", KILLED_WORKER, tmp_path])
    assert result.returncode == 2, result.stderr
    assert "worker that reads the data ended" in result.stderr
    assert "Traceback" not in result.stderr
    assert_as_if_nothing_had_happened(tmp_path, straight)


def test_other_runtime_errors_are_bugs():
    with pytest.raises(RuntimeError, match="shape"), contextlib.suppress(SystemExit):
        run_program(lambda: (_ for _ in ()).throw(RuntimeError("shape '[2]' is invalid")))
