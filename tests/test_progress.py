"""What a run tells while it runs: lines, the live line of a terminal, speed."""

from __future__ import annotations

import os
import re
import signal
import sys

import pytest
import torch
from launch import ROOT
from outcomes import printed_by
from toy import CPU, ToyModel, run_toy_training, toy_evaluation

from util import live_line as live_line_module
from util import progress, stopping
from util.live_line import LiveLine
from util.logging import read_json_lines
from util.loss_means import LossMeans


@pytest.fixture
def clock(monkeypatch):
    """A clock of whole seconds: `clock.now` is the time."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "perf_counter", lambda: Clock.now)
    monkeypatch.setattr(live_line_module.time, "monotonic", lambda: Clock.now)
    return Clock


# --- lines ---------------------------------------------------------------------------------------


def test_a_line_every_so_many_steps_and_at_the_end(tmp_path, log_lines):
    run_toy_training(tmp_path, 1, probabilities={"text": 1.0}, log_every=2)
    lines = [line for line in log_lines if line.startswith("epoch")]
    assert [line.split("]")[0] for line in lines] == [f"epoch 0 [{n}/5" for n in (2, 4, 5)]
    assert all("lr 5.00e-02" not in line for line in lines[:2])  # still warming up
    number = r"\d+\.\d+"
    form = rf"\]  lr \S+  loss {number}  square {number}  size {number}  {number} it/s  "
    form += rf"data {number} s  left 0:00:\d\d  memory \d+ MiB$"
    assert re.search(form, lines[0])


def test_an_epoch_tells_time_left_and_points_of_curves(clock, log_lines, terminal, monkeypatch):
    """The second of three epochs of ten steps of 2 seconds, from its fifth step on."""
    line = LiveLine()
    line.attach(terminal)
    monkeypatch.setattr(progress, "live_line", line)
    means, points = LossMeans(1), []
    told = progress.EpochProgress(
        1,
        3,
        10,
        4,
        log_every=3,
        means=means,
        rates=lambda: {"first": 0.1, "rest": 0.2},
        images=lambda step: 8 if step < 9 else 2,
        device=CPU,
        track=points.append,
    )
    for step in range(4, 10):
        clock.now += 0.5
        told.data_ready()
        clock.now += 1.5
        means.add(
            step, "text", [1], {"loss": torch.tensor(float(step)), "grad_norm": torch.ones(())}
        )
        told.step_done()
    assert [line.partition("  memory")[0] for line in log_lines] == [
        "epoch 1 [ 6/10]  lr 2.00e-01  loss 4.5000  0.50 it/s  data 0.500 s  left 0:00:28",
        "epoch 1 [ 9/10]  lr 2.00e-01  loss 7.0000  0.50 it/s  data 0.500 s  left 0:00:22",
        "epoch 1 [10/10]  lr 2.00e-01  loss 9.0000  0.50 it/s  data 0.500 s  left 0:00:20",
    ]
    assert [text.strip() for text in terminal.read().split("\r")[1:]] == [
        "epoch 1 [ 5/10]  0.50 it/s  left 0:00:10  of the run 0:00:30",
        "epoch 1 [ 7/10]  loss 5.0000  0.50 it/s  left 0:00:06  of the run 0:00:26",
        "epoch 1 [ 8/10]  loss 6.0000  0.50 it/s  left 0:00:04  of the run 0:00:24",
    ]
    memory = [point.pop("speed/memory_mib") for point in points]
    assert min(memory) > 10
    assert points[0] == {
        "step/loss": 4.5,
        "step/loss_text": 4.5,
        "step/grad_norm": 1.0,
        "lr/first": 0.1,
        "lr/rest": 0.2,
        "speed/images_per_second": 4.0,
        "speed/data_seconds": 0.5,
        "speed/step_seconds": 2.0,
    }
    assert [point["speed/images_per_second"] for point in points] == [4.0, 4.0, 1.0]
    total = told.speed()
    assert total["images_per_second"] == round((5 * 8 + 2) / 12, 6)
    assert (total["step_seconds"], total["data_seconds"]) == (2.0, 0.5)


def test_speed_of_a_loop(clock):
    watch = progress.Stopwatch()
    for data, work, images in ((3, 1, 4), (1, 1, 4), (0, 2, 2)):
        clock.now += data
        watch.data_ready()
        clock.now += work
        watch.step_done(images)
        if clock.now == 6:
            assert watch.recent() == progress.Speed(3.0, 2.0, 8 / 6)
    assert watch.recent() == progress.Speed(2.0, 0.0, 1.0)
    assert watch.total() == progress.Speed(8 / 3, 4 / 3, 10 / 8)
    assert watch.step_seconds == pytest.approx(8 / 3)  # at first the mean of all


def test_a_record_tells_the_speed(tmp_path):
    trainer = run_toy_training(tmp_path, 1, accumulation_steps=2, length=9)
    speed = read_json_lines(tmp_path / "log.txt")[0]["speed"]
    assert set(speed) == {"images_per_second", "data_seconds", "step_seconds", "memory_mib"}
    assert speed["memory_mib"] > 10
    batches = trainer.loader.batch_sampler
    assert [batches.samples(step) for step in range(batches.steps)] == [4, 4, 1]


# --- the live line -------------------------------------------------------------------------------


def screen(written):
    """What a terminal shows in the end, line by line."""
    shown = []
    for line in written.replace("\r\n", "\n").split("\n"):
        cells = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        shown.append("".join(cells).rstrip())
    return shown


class Terminal:
    """A terminal for a `LiveLine` in this process."""

    def __init__(self):
        self.reader, self.writer = os.openpty()

    def isatty(self):
        return True

    def fileno(self):
        return self.writer

    def read(self):
        """All that was written since the last call."""
        os.write(self.writer, b"#")
        written = b""
        while not written.endswith(b"#"):
            written += os.read(self.reader, 4096)
        return written[:-1].decode()


@pytest.fixture
def terminal():
    made = Terminal()
    yield made
    os.close(made.reader)
    os.close(made.writer)


def test_the_line_is_replaced_a_few_times_a_second_and_cleared(clock, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    line = LiveLine()
    line.show(lambda: pytest.fail("there is no terminal yet"))
    line.attach(terminal)
    written = ""
    for second in range(100):
        clock.now = 10 + second / 100
        line.show(lambda second=second: f"step {second}")
    written = terminal.read()
    assert [part.strip() for part in written.split("\r")[1:]] == [
        "step 0", "step 25", "step 50", "step 75",
    ]  # fmt: skip
    clock.now = 12
    line.show(lambda: "x" * 30)
    line.clear()
    line.clear()
    assert terminal.read() == "\r" + "x" * 19 + "\r" + " " * 19 + "\r"
    line.attach(None)
    clock.now = 14
    line.show(lambda: pytest.fail("detached"))


def test_a_terminal_that_is_gone_ends_nothing(clock):
    terminal = Terminal()
    line = LiveLine()
    line.attach(terminal)
    os.close(terminal.reader)
    os.close(terminal.writer)
    clock.now = 1
    line.show(lambda: "step 1")
    line.clear()


PROGRAM = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}]  # the toys
from pathlib import Path
import toy
from util import live_line
from util.command_line import run_program
from util.errors import UserError
from util.logging import setup

live_line._SECONDS_BETWEEN = 0  # every step, however fast

def program():
    setup(sys.argv[1])
    trainer = toy.make_toy_trainer(Path(sys.argv[2]), 2, log_every=4)
    toy.toy_evaluation(Path(sys.argv[2])).run(trainer.model)
    trainer.run()
    live_line.live_line.show(lambda: "half of a step ...")
    raise UserError("mend this")

sys.exit(run_program(program))
"""


def output_of_training(folder, is_terminal):
    """What a training and an error print, and the lines of info.txt."""
    folder.mkdir()
    (folder / "run").mkdir()
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-c", PROGRAM, str(folder / "info.txt"), str(folder / "run")]
    printed = printed_by(command, {**variables, "OMP_NUM_THREADS": "1"}, is_terminal)
    return printed, (folder / "info.txt").read_text()


def without_numbers(lines):
    return [re.sub(r"\d+", "0", line) for line in lines]


def test_a_terminal_shows_the_same_lines_and_one_that_moves(tmp_path):
    to_terminal, file = output_of_training(tmp_path / "terminal", True)
    to_pipe, _ = output_of_training(tmp_path / "pipe", False)
    assert "\r" not in to_pipe and "\r" not in file
    assert without_numbers(screen(to_terminal)) == without_numbers(to_pipe.split("\n"))
    assert "half of a step" not in to_pipe + "".join(screen(to_terminal))
    assert "half of a step" in to_terminal
    number = r"\d+\.\d+"
    assert re.search(
        rf"\repoch 0 \[2/5\]  loss {number}  {number} it/s  left 0:00:00  of the run 0:00:0\d\s*\r",
        to_terminal,
    )
    assert re.search(rf"\revaluation \[2/3\]  {number} it/s  left 0:00:00\s*\r", to_terminal)
    # Where there is a line for the log, there is no other.
    assert not re.search(r"\repoch 0 \[(4|5)/5\]  loss", to_terminal)


def test_evaluation_leaves_no_line_behind(tmp_path, clock, terminal, monkeypatch):
    line = LiveLine()
    line.attach(terminal)
    monkeypatch.setattr(progress, "live_line", line)
    clock.now = 1
    torch.manual_seed(0)
    toy_evaluation(tmp_path).run(ToyModel())
    assert screen(terminal.read()) == [""]


def test_a_signals_message_stands_alone(clock, terminal, monkeypatch, capsys):
    line = LiveLine()
    line.attach(terminal)
    monkeypatch.setattr(stopping, "live_line", line)
    clock.now = 1
    with stopping.StopSignals() as signals:
        line.show(lambda: "step 1")
        os.kill(os.getpid(), signal.SIGUSR1)
    assert signals.received == signal.SIGUSR1
    assert screen(terminal.read()) == [""]
    assert capsys.readouterr().err.startswith("SIGUSR1: ending after this step")
