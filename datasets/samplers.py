"""Which samples a process reads, and in which order."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

# Keeps the order's random stream apart from others of (seed, epoch, ...).
_STREAM = 0x0DE2


class TrainingSampler(Sampler[int]):
    """A process' share of a random order, drawn anew for every epoch.

    The order depends on (seed, epoch) alone, so that a resumed run meets the same samples. All
    processes read equally many: where the data set does not divide evenly, the first samples of the
    order are read once more.

    Args:
        length: number of samples, at least 1.
        seed: not negative.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; to be called before the epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch, _STREAM)).permutation(self.length)
        share = np.resize(order, len(self) * self.world_size)[self.rank :: self.world_size]
        return iter(share.tolist())

    def __len__(self) -> int:
        return math.ceil(self.length / self.world_size)


class EvaluationSampler(Sampler[int]):
    """Every world_size-th sample in order: all processes together read each sample exactly once.

    The processes' shares may differ by one sample; no process may wait for another inside the loop.

    Args:
        length: number of samples.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, length, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
