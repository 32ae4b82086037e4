"""A toy training for `torchrun`: three epochs of steps of 4 samples, on what processes there are.

`torchrun ... elastic_run.py FOLDER`; it goes on after the newest checkpoint.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from toy import run_toy_training

from util import checkpoint, distributed
from util.command_line import run_program
from util.optimization import Optimization
from util.run_folder import read_newest


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    distributed.initialize("cpu")
    print(f"process {os.getpid()}: {distributed.rank()} of {distributed.world_size()}", flush=True)
    original = Optimization.step

    def slowly(optimization: Optimization, epoch: int) -> dict:
        time.sleep(0.5 if distributed.world_size() == 2 else 0)  # there has to be time to kill one
        return original(optimization, epoch)

    Optimization.step = slowly
    found = read_newest(folder, checkpoint.load) if distributed.is_main_process() else None
    newest = distributed.broadcast_object(None if found is None else found[0])
    run_toy_training(
        folder,
        3,
        resume=newest,
        processes=(distributed.rank(), distributed.world_size()),
        batch_size=2,
        accumulation_steps=1,
        length=24,
        steps=1,
        eval_every=0,
    )
    distributed.shutdown()


if __name__ == "__main__":
    sys.exit(run_program(main))
