"""Which samples a process reads, and in which order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from util.errors import UserError

# Keeps the order's random stream apart from others of (seed, epoch, ...).
_STREAM = 0x0DE2


class TrainingSampler(Sampler[int]):
    """A process' share of a random order, drawn anew for every epoch.

    The order depends on (seed, epoch) alone, so that a resumed run meets the same samples. All
    processes read equally many: where the data set does not divide evenly, the first samples of the
    order are read once more.

    With `together` above 1, the order is made of blocks of that many samples of one image, of
    different people as far as there are. A batch whose size is a multiple of `together` then asks
    for different people of the same image: what its samples do not share is the prompt, so that the
    gradient says more about who is meant. Every sample is read at least once; where an image's
    samples do not fill its blocks, or are mostly of one person, some are read again. Images with a
    single sample have no partner for it: these samples share blocks with each other.

    Args:
        groups: for every image, for every person in it, the samples; every sample is in it once.
        seed: not negative.
        rank: number of this process.
        world_size: number of processes.
        together: samples of a block, at least 1.

    Raises:
        UserError: `together` is below 1.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Sequence[int]]],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        together: int = 1,
    ) -> None:
        if together < 1:
            raise UserError(f"prompts_per_image has to be at least 1, got {together}.")
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.together = together
        self.epoch = 0
        # The samples of each image in order, and for every sample a number of its person.
        self._images = [sorted(sample for person in image for sample in person) for image in groups]
        people = (person for image in groups for person in image)
        self._person = {sample: i for i, person in enumerate(people) for sample in person}
        self._num_blocks = len(self._person)
        if together > 1:
            alone = [image for image in self._images if len(image) == 1]
            self._num_blocks = math.ceil(len(alone) / together) + sum(
                self._count_blocks(image) for image in self._images if len(image) > 1
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; to be called before the epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch, _STREAM))
        if self.together == 1:
            blocks = generator.permutation(np.concatenate(self._images))[:, None]
        else:
            drawn = np.array(self._draw_blocks(generator))
            blocks = drawn[generator.permutation(len(drawn))]
        blocks = np.resize(blocks, (len(self) // self.together * self.world_size, self.together))
        return iter(blocks[self.rank :: self.world_size].flatten().tolist())

    def __len__(self) -> int:
        return math.ceil(self._num_blocks / self.world_size) * self.together

    def _draw_blocks(self, generator: np.random.Generator) -> list[list[int]]:
        """Blocks of `together` samples of one image, or of images with a single sample."""
        blocks, alone = [], []
        for image in self._images:
            mixed = generator.permutation(image).tolist()
            if len(mixed) > 1:
                blocks += self._split(mixed, self._count_blocks(mixed), generator)
            else:
                alone += mixed
        if alone:
            count = math.ceil(len(alone) / self.together)
            blocks += self._split(generator.permutation(alone).tolist(), count, generator)
        return blocks

    def _count_blocks(self, image: Sequence[int]) -> int:
        """Blocks of an image: room for all samples, and for those of one person in different ones.

        With fewer people than samples in a block, a person may be in it several times.
        """
        own = Counter(self._person[sample] for sample in image)
        most_in_block = math.ceil(self.together / len(own))
        needed = math.ceil(len(image) / self.together)
        return max(needed, math.ceil(max(own.values()) / most_in_block))

    def _split(
        self, mixed: list[int], count: int, generator: np.random.Generator
    ) -> list[list[int]]:
        """Samples in random order -> `count` blocks, full, with many different people in each."""
        of_person: dict[int, list[int]] = {}
        for sample in mixed:
            of_person.setdefault(self._person[sample], []).append(sample)
        # Dealt out one by one, the samples of a person come into different blocks.
        dealt = [s for own in sorted(of_person.values(), key=len, reverse=True) for s in own]
        blocks = [dealt[i::count] for i in range(count)]
        for block in blocks:
            while len(block) < self.together:
                present = Counter(self._person[sample] for sample in block)
                fewest = min(present[person] for person in of_person)
                others = [s for s in mixed if present[self._person[s]] == fewest]
                others = [s for s in others if s not in block] or others
                block.append(int(generator.choice(others)))
        return blocks


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
