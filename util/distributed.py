"""Several processes as one: start-up and the few exchanges that the project needs.

Every function also works in a process that runs alone, where it costs nothing.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterable, Iterator, MutableMapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from util.devices import find_device
from util.errors import UserError

T = TypeVar("T")

# The main process may compute metrics for a while before the others hear from it again.
_TIMEOUT = datetime.timedelta(minutes=60)


def initialize(device: str | None, local_rank: int | None = None) -> torch.device:
    """Join the other processes of this run, if there are any, and choose this one's device.

    The launcher is recognised by its environment: `torchrun` and `python -m
    torch.distributed.launch` (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), SLURM's
    `srun` (SLURM_PROCID and its like), or none.  Tensors travel by NCCL on CUDA, by Gloo on the
    CPU.

    Args:
        device: see `util.devices.find_device`; several processes on CUDA take one GPU each by their
            local rank.
        local_rank: this process' number on its machine, where the launcher passes it as an
            argument only.

    Returns:
        The device of this process.

    Raises:
        UserError: this machine does not have the device, or there are more processes than GPUs.
    """
    chosen = find_device(device)
    _translate_slurm(os.environ)
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        return chosen

    local_rank = int(os.environ.get("LOCAL_RANK", local_rank or 0))
    if chosen.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"Process {local_rank} of this machine has no GPU: {torch.cuda.device_count()} "
                f"visible. Start one process per GPU."
            )
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
        backend = "cpu:gloo,cuda:nccl"  # Python objects travel through CPU memory
    else:
        backend = "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    return chosen


def shutdown() -> None:
    """Leave the group of processes; a process that runs alone has none."""
    if is_distributed():
        dist.destroy_process_group()


def is_distributed() -> bool:
    """Whether there is a group of processes (possibly of one)."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, 0 if it runs alone."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def is_main_process() -> bool:
    """Whether this process prints and writes files."""
    return rank() == 0


def reduce_mean(tensor: Tensor) -> Tensor:
    """The mean of a floating-point tensor over the processes, the same on all of them.

    It carries no gradient.  A NaN of any process is a NaN everywhere.
    """
    return reduce_sum(tensor) / world_size()


def reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of a tensor over the processes, the same on all of them; without gradient."""
    tensor = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def all_gather_object(value: T) -> list[T]:
    """Every process' picklable `value`, in order of rank, on every process."""
    if world_size() == 1:
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_in_pieces(pieces: Iterable[T]) -> Iterator[T]:
    """All other processes' picklable pieces, on the main process; nothing elsewhere.

    Never more than one piece of each process is on its way, so that large collections are not held
    several times. To be used up on all processes, which may have different numbers of pieces.

    Args:
        pieces: of this process; not asked for on the main process. None of them is None.
    """
    if world_size() == 1:
        return
    own = iter(() if is_main_process() else pieces)
    while True:
        piece = next(own, None)
        if not any(all_gather_object(piece is not None)):
            return
        gathered: list | None = [None] * world_size() if is_main_process() else None
        dist.gather_object(piece, gathered, dst=0)
        yield from (other for other in gathered or () if other is not None)


def broadcast_object(value: T) -> T:
    """The main process' picklable `value`, on every process."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def _translate_slurm(environment: MutableMapping[str, str]) -> None:
    """Fill in torchrun's variables from those of `srun`, unless another launcher has set them."""
    # srun alone sets SLURM_STEP_NUM_TASKS.  The shell of an sbatch job has a SLURM_PROCID too,
    # but no companions that would ever join it.
    if "RANK" in environment or "SLURM_PROCID" not in environment:
        return
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
    environment["LOCAL_RANK"] = environment.get("SLURM_LOCALID", "0")
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    environment.setdefault("MASTER_ADDR", _first_node(nodes) or "127.0.0.1")
    # The same for the whole job, and another one for a job that shares the machine.
    port = 20000 + int(environment.get("SLURM_JOB_ID", 0)) % 20000
    environment.setdefault("MASTER_PORT", str(port))


def _first_node(nodes: str) -> str:
    """The first host of SLURM's notation: "gpu[003-005,9],login" -> "gpu003"."""
    match = re.match(r"([^\[,]*)(?:\[(\w+)[^\]]*\]([^,]*))?", nodes)
    return "".join(part or "" for part in match.groups())
