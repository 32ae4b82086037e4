"""Toy trainings that are killed at chosen moments and resumed; a program of its own.

Every run is a forked child (or two that find each other), so that Python and PyTorch are imported
once.  `python fault_runs.py FOLDER PROCESSES WORKERS NUMBER` kills at NUMBER random moments and
prints, as JSON, what differed from the run that nothing happened to.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import threading
from pathlib import Path

import torch
from toy import make_toy_trainer

from util import checkpoint, checkpoint_files, distributed, files, run_folder
from util.optimization import Optimization
from util.run_folder import read_newest

EPOCHS = 3


class Killer:
    """Counts moments of a run, and kills it with SIGKILL at one of them."""

    def __init__(self, moment: int | None) -> None:
        self.moment, self.count, self.lock = moment, 0, threading.Lock()

    def watch(self, owner, name: str) -> None:
        """Before and after each call of a function are moments."""
        original = getattr(owner, name)

        def watched(*arguments, **keywords):
            self.pass_moment()
            result = original(*arguments, **keywords)
            self.pass_moment()
            return result

        setattr(owner, name, watched)

    def pass_moment(self) -> None:
        with self.lock:
            self.count += 1
            if self.count == self.moment:
                os.kill(os.getpid(), signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def train(folder: Path, rank: int, world_size: int, workers: int, moment: int | None) -> int:
    """Train to the end or to the moment; returns how many moments there were."""
    device = distributed.initialize("cpu")
    killer = Killer(moment if rank == 0 or moment is None else moment + 5 * rank)
    killer.watch(Optimization, "step")
    killer.watch(checkpoint_files.torch, "save")
    killer.watch(files.os, "replace")
    killer.watch(files.os, "link")
    killer.watch(run_folder, "append_json_line")
    newest = distributed.broadcast_object(
        read_newest(folder, lambda path: None) if rank == 0 else None
    )
    assert device.type == "cpu"
    trainer = make_toy_trainer(
        folder,
        EPOCHS,
        resume=None if newest is None else read_newest(folder, checkpoint.load)[0],
        processes=(rank, world_size),
        batch_size=2 if world_size == 1 else 1,
        length=9,
        steps=1,
        eval_every=2,
        num_workers=workers,
        ema_decay=0.9,
    )
    trainer.run()
    distributed.shutdown()
    return killer.count


def run(folder: Path, world_size: int, workers: int, moment: int | None = None) -> tuple[int, list]:
    """One run in children of its own; returns how many moments there were, and exit statuses."""
    folder.mkdir(exist_ok=True)
    port, children = free_port(), []
    read_end, write_end = os.pipe()
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if world_size > 1:
                    os.environ |= {
                        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
                        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                    }  # fmt: skip
                count = train(folder, rank, world_size, workers, moment)
                if rank == 0:
                    os.write(write_end, str(count).encode())
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(write_end)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    count = os.read(read_end, 100)
    os.close(read_end)
    return int(count or 0), statuses


def outcome(folder: Path) -> tuple[dict, list]:
    """All tensors of the last checkpoint, and the records without what is measured in seconds."""
    state = checkpoint.load(folder / "checkpoint.pth")
    tensors = {f"model.{name}": value for name, value in state["model"].items()}
    tensors |= {f"average.{name}": v for name, v in state["average"]["model"].items()}
    for number, values in state["optimizer"]["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
    records = [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]
    kept = ("epoch", "step", "train", "lr", "eval", "eval_average")
    return tensors, [{key: record.get(key) for key in kept} for record in records]


def difference(first: tuple[dict, list], second: tuple[dict, list]) -> str:
    """What differs, bit by bit; empty: nothing."""
    if first[1] != second[1]:
        return "records"
    if first[0].keys() != second[0].keys():
        return "entries"
    return " ".join(n for n, value in first[0].items() if not torch.equal(value, second[0][n]))


def main() -> None:
    folder, world_size, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    moments, statuses = run(folder / "straight", world_size, workers)
    assert statuses == [0] * world_size, statuses
    expected = outcome(folder / "straight")
    chosen = random.Random(world_size).sample(range(1, moments), int(sys.argv[4]))
    results = []
    for moment in chosen:
        place = folder / f"killed{moment}"
        _, killed = run(place, world_size, workers, moment)
        _, resumed = run(place, world_size, workers)
        results.append(
            {
                "moment": moment,
                "killed": killed,
                "resumed": resumed,
                "difference": difference(expected, outcome(place)),
                "left": sorted(path.name for path in place.glob(".[0-9]*")),
            }
        )
    print(json.dumps({"moments": moments, "results": results}))


if __name__ == "__main__":
    main()
