"""Which samples a process reads, and in which order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Keeps the order's random stream apart from others of (seed, epoch, ...).
_STREAM = 0x0DE2


class TrainingSampler(Sampler[int]):
    """A process' share of a random order, drawn anew for every epoch.

    The order depends on (seed, epoch) alone, so that a resumed run meets the same samples. All
    processes read equally many: where the data set does not divide evenly, the first samples of the
    order are read once more.

    With `together` above 1, up to that many pairs of one image follow each other. A batch then
    asks for different people of the same image: what its samples do not share is the prompt, so
    that the gradient says more about who is meant.

    Args:
        groups: the samples of each image; together every sample once.
        seed: not negative.
        rank: number of this process.
        world_size: number of processes.
        together: how many samples of an image follow each other, at least 1.

    Raises:
        ValueError: `together` is below 1.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        together: int = 1,
    ) -> None:
        if together < 1:
            raise ValueError(f"prompts_per_image has to be at least 1, got {together}.")
        self.groups = groups
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.together = together
        self.epoch = 0
        self.length = sum(len(group) for group in groups)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; to be called before the epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch, _STREAM))
        if self.together == 1:
            order = generator.permutation(np.concatenate(self.groups))
        else:
            runs = []
            for group in self.groups:
                mixed = generator.permutation(group)
                runs += np.split(mixed, range(self.together, len(mixed), self.together))
            order = np.concatenate([runs[i] for i in generator.permutation(len(runs))])
        blocks = np.resize(order, len(self) * self.world_size)
        blocks = blocks.reshape(-1, self.world_size, self.together)
        return iter(blocks[:, self.rank].flatten().tolist())

    def __len__(self) -> int:
        return math.ceil(self.length / (self.world_size * self.together)) * self.together


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
