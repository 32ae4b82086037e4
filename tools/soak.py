"""Kill a training at random again and again, and see that nothing of it is lost.

    python tools/soak.py --output outputs/soak --kill_every 60 240 -- \
        -c config/uniphd_quickstart.py --options epochs=30

runs `main.py` with what follows `--` twice: once undisturbed, once killed (SIGKILL, now and then
SIGTERM) at random moments and started again with `--resume auto` until it is done. Then it compares
the weights and the optimizer bit by bit, and writes soak.json and soak.png: memory and open files
of both, over time.  It continues where it was interrupted itself. Linux only.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from util import checkpoint
from util.command_line import output_folder, require_range, run_program
from util.errors import UserError
from util.logging import append_json_line, read_json_lines, write_json
from util.progress import format_seconds

ROOT = Path(__file__).parents[1]

_SAMPLE_SECONDS = 5.0


def usage_of(process: int) -> tuple[float, int]:
    """Memory in MiB that a process group has to itself, and its open files, of all members."""
    memory, files = 0.0, 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) != process:  # the process group
                continue
            resident, shared = map(int, (folder / "statm").read_text().split()[1:3])
            files += len(list((folder / "fd").iterdir()))
        except OSError:
            continue  # it has just ended
        memory += (resident - shared) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return memory, files


def train(
    command: list[str], folder: Path, log: Path, deadline: float, number: int
) -> tuple[int, int]:
    """Start a training and watch it to its end, or end it with a signal at the deadline.

    Args:
        command: of the training.
        folder: of its output.
        log: takes a line with time, memory and open files every few seconds.
        deadline: of the clock `time.monotonic`.
        number: of the signal.

    Returns:
        Its exit status, and how many signals it was sent (0 or 1).
    """
    with open(folder / "screen.txt", "ab") as screen:
        process = subprocess.Popen(
            [*command, "--output_dir", str(folder), "--resume", "auto"],
            cwd=ROOT,
            stdout=screen,
            stderr=screen,
            start_new_session=True,
        )
    sent = 0
    try:
        while True:
            try:
                return process.wait(
                    min(_SAMPLE_SECONDS, max(0.1, deadline - time.monotonic()))
                ), sent
            except subprocess.TimeoutExpired:
                memory, files = usage_of(process.pid)
                append_json_line(log, {"time": time.time(), "memory": memory, "files": files})
            if not sent and time.monotonic() >= deadline:
                sent = 1
                if number == signal.SIGKILL:
                    os.killpg(process.pid, number)  # the machine is gone, its workers as well
                else:
                    process.send_signal(number)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def differences(first: Path, second: Path) -> list[str]:
    """Names of what differs between two checkpoints, bit by bit."""
    states = []
    for path in (first, second):
        state = checkpoint.load(path)
        tensors = {f"model {name}": value for name, value in state["model"].items()}
        for number, values in state["optimizer"]["state"].items():
            tensors |= {f"optimizer {number} {name}": value for name, value in values.items()}
        states.append(tensors)
    names = states[0].keys() | states[1].keys()
    return sorted(
        name
        for name in names
        if not all(name in state for state in states)
        or not torch.equal(states[0][name], states[1][name])
    )


def soak(command: list[str], output: Path, kill_every: tuple[float, float]) -> dict[str, Any]:
    """Train undisturbed, then killed, and compare; returns what soak.json holds."""
    logs = {name: output / f"{name}.jsonl" for name in ("undisturbed", "killed")}
    summary: dict[str, Any] = {"command": command, "signals": {"SIGKILL": 0, "SIGTERM": 0}}
    for name, log in logs.items():
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        status = None
        while status != 0:
            number, deadline = signal.SIGKILL, float("inf")
            if name == "killed":
                number = random.choice([signal.SIGKILL] * 3 + [signal.SIGTERM])
                deadline = time.monotonic() + random.uniform(*kill_every)
            status, sent = train(command, folder, log, deadline, number)
            if sent:
                summary["signals"][number.name] += 1
                print(f"{name}: {number.name}, exit status {status}", flush=True)
            elif status != 0:
                raise UserError(
                    f"The training ended by itself with status {status}; see {folder}/screen.txt."
                )
        times = [line["time"] for line in read_json_lines(log)] or [0.0]
        print(f"{name}: done, {format_seconds(times[-1] - times[0])}", flush=True)
    found = differences(*(output / name / "checkpoint.pth" for name in logs))
    return {**summary, "differences": found}


def plot(output: Path) -> None:
    """Memory and open files of both trainings over time."""
    figure, axes = plt.subplots(2, 1, figsize=(8, 6), layout="constrained", sharex=True)
    for name in ("undisturbed", "killed"):
        lines = read_json_lines(output / f"{name}.jsonl")
        minutes = [(line["time"] - lines[0]["time"]) / 60 for line in lines]
        for axis, key in zip(axes, ("memory", "files"), strict=True):
            axis.plot(minutes, [line[key] for line in lines], ".-", markersize=3, label=name)
    for axis, label in zip(axes, ("memory of its own, MiB", "open files"), strict=True):
        axis.set_ylabel(label)
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
    axes[0].legend()
    axes[1].set_xlabel("minutes")
    figure.savefig(output / "soak.png", dpi=110)
    plt.close(figure)


def main() -> int:
    """Command line; the status is 1 where the two trainings differ."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/soak"), help="folder")
    parser.add_argument(
        "--kill_every",
        type=float,
        nargs=2,
        default=(60.0, 240.0),
        metavar=("LEAST", "MOST"),
        help="seconds between the start of a training and its end",
    )
    parser.add_argument("arguments", nargs="+", help="of main.py, after --")
    arguments = parser.parse_args()
    found: list[str] = []

    def run() -> None:
        least, most = arguments.kill_every
        require_range(1, 10**6, kill_every=least)
        require_range(least, 10**6, kill_every=most)
        output_folder(arguments.output, "--output")
        command = [sys.executable, "main.py", *arguments.arguments]
        summary = soak(command, arguments.output, (least, most))
        write_json(arguments.output / "soak.json", summary)
        plot(arguments.output)
        found.extend(summary["differences"])
        text = f"different: {', '.join(found[:5])}" if found else "the same, bit by bit"
        print(f"Weights and optimizer are {text}. {arguments.output / 'soak.png'}")

    return run_program(run) or int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
