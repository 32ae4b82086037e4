"""Which samples a process reads, in which order and in which batches."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch.utils.data import Sampler

from util.errors import UserError
from util.logging import LOGGER_NAME

logger = logging.getLogger(LOGGER_NAME)

# Keeps the order's random stream apart from others of (seed, epoch, ...).
_STREAM = 0x0DE2


class TrainingOrder:
    """A random order of the samples, drawn anew for every epoch, as blocks.

    It depends on (seed, epoch) alone, so that a resumed run meets the same samples, on any number
    of processes.

    With `together` above 1, the order is made of blocks of that many samples of one image, of
    different people as far as there are. A batch whose size is a multiple of `together` then asks
    for different people of the same image: what its samples do not share is the prompt, so that the
    gradient says more about who is meant. Every sample is read at least once; where an image's
    samples do not fill its blocks, or are mostly of one person, some are read again. Images with a
    single sample have no partner for it: these samples share blocks with each other.

    Args:
        groups: for every image, for every person in it, the samples; every sample is in it once.
        seed: not negative.
        together: samples of a block, at least 1.

    Raises:
        UserError: `together` is below 1.
    """

    def __init__(
        self, groups: Sequence[Sequence[Sequence[int]]], seed: int, together: int = 1
    ) -> None:
        if together < 1:
            raise UserError(f"prompts_per_image has to be at least 1, got {together}.")
        self.seed = seed
        self.together = together
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

    def __len__(self) -> int:
        """The number of blocks, the same in every epoch."""
        return self._num_blocks

    def blocks(self, epoch: int) -> np.ndarray:
        """The order of an epoch: [number of blocks, together] samples."""
        generator = np.random.default_rng((self.seed, epoch, _STREAM))
        if self.together == 1:
            return generator.permutation(np.concatenate(self._images))[:, None]
        drawn = np.array(self._draw_blocks(generator))
        return drawn[generator.permutation(len(drawn))]

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


class TrainingBatches(Sampler[list[int]]):
    """This process' batches: its parts of every step's global batch.

    The order of an epoch is cut into global batches of `batch_size` x `parts` samples, one a step,
    and each of these into `parts` parts. The processes take the parts in turns: with as many
    processes as parts one each, with fewer several in rounds, whose gradients accumulate. What a
    step learns from therefore does not depend on the number of processes, and an epoch's every
    block is read exactly once. The last global batch is what is left; its parts are of about equal
    size. A process without a part in the last round reads an earlier one again, which
    `counts` says is not to count.

    Args:
        order: of the samples.
        batch_size: samples of a part; a multiple of the order's `together`.
        rank: number of this process.
        world_size: number of processes.
        accumulation_steps: rounds, parts of every process in a step.

    Attributes:
        parts: in which a global batch is cut: world_size x accumulation_steps, until a resumed run
            sets it to what it began with.

    Raises:
        UserError: `batch_size` is not a multiple of the order's `together`.
    """

    def __init__(
        self,
        order: TrainingOrder,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        accumulation_steps: int = 1,
    ) -> None:
        if batch_size % order.together:
            raise UserError(
                f"batch_size has to be a multiple of prompts_per_image, so that an image's prompts "
                f"are in one batch; got {batch_size} and {order.together}."
            )
        self.order = order
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.accumulation_steps = accumulation_steps
        self.parts = world_size * accumulation_steps
        self.epoch = 0
        self.first_step = 0

    def start(self, epoch: int, first_step: int = 0) -> None:
        """Choose the epoch, and the step (0, 1, ...) of it to begin with; to be called before."""
        self.epoch = epoch
        self.first_step = first_step

    def state_dict(self) -> dict[str, int]:
        """What decides about the global batches, plain values, for a checkpoint."""
        return {
            "batch_size": self.batch_size,
            "parts": self.parts,
            "accumulation_steps": self.accumulation_steps,
        }

    def load_state_dict(self, state: Mapping[str, int], *, within_epoch: bool) -> None:
        """Continue with the global batches of a checkpoint on any number of processes.

        Where the settings ask for others, they are obeyed after a whole epoch.

        Args:
            state: see `state_dict`.
            within_epoch: the checkpoint was saved within an epoch, whose other samples are to come.

        Raises:
            UserError: the settings ask for other batches within an epoch.
        """
        before, now = state["batch_size"] * state["parts"], self.batch_size * self.parts
        own = {"batch_size": self.batch_size, "accumulation_steps": self.accumulation_steps}
        if all(state[name] == value for name, value in own.items()):
            self.parts = state["parts"]
        elif before != now and within_epoch:
            settings = ", ".join(f"{name}={state[name]} (now {own[name]})" for name in own)
            raise UserError(
                f"The checkpoint to resume was saved within an epoch of {before} samples a step; "
                f"the settings make it {now}, so that the samples still to come are not known. "
                f"Resume with {settings}, or from a checkpoint of a whole epoch."
            )
        elif before != now:
            logger.warning(
                "The checkpoint learnt from %d samples a step, this run does from %d: learning "
                "rates (not scaled by it) and steps of an epoch mean something else.",
                before,
                now,
            )

    @property
    def rounds(self) -> int:
        """Batches of this process in a step."""
        return math.ceil(self.parts / self.world_size)

    @property
    def steps(self) -> int:
        """Steps of a whole epoch."""
        return math.ceil(len(self.order) / self._blocks_of_step)

    def __len__(self) -> int:
        """Batches of this process that are still to come in the epoch."""
        return (self.steps - self.first_step) * self.rounds

    def __iter__(self) -> Iterator[list[int]]:
        blocks = self.order.blocks(self.epoch)
        size = self._blocks_of_step
        for step in range(self.first_step, self.steps):
            parts = np.array_split(blocks[step * size : (step + 1) * size], self.parts)
            for part in range(self.rank, self.rounds * self.world_size, self.world_size):
                own = parts[part] if self.counts(step, part // self.world_size) else parts[0]
                yield own.flatten().tolist()

    def part(self, round_number: int) -> int:
        """Number of the part that this process reads in a round; from `parts` on it is none."""
        return self.rank + round_number * self.world_size

    def counts(self, step: int, round_number: int) -> bool:
        """Whether what this process reads in a round of a step is to count."""
        left = len(self.order) - step * self._blocks_of_step
        return self.part(round_number) < min(self.parts, left)

    def sizes(self) -> dict[str, int]:
        """What a step's global batch is made of, by name, for people to read."""
        return {
            "samples_per_step": self.parts * self.batch_size,
            "batch_size": self.batch_size,
            "batches": self.parts,
            "processes": self.world_size,
            "rounds": self.rounds,
        }

    def samples(self, step: int) -> int:
        """Samples of a step's global batch."""
        size = self._blocks_of_step
        return min(size, len(self.order) - step * size) * self.order.together

    @property
    def _blocks_of_step(self) -> int:
        return self.parts * self.batch_size // self.order.together


class EvaluationBatches(Sampler[list[int]]):
    """This process' batches: every world_size-th of those that a process alone would read.

    Batches, and with them the padding of their images, follow from the data set and the batch size
    alone, so that figures do not depend on the number of processes. All processes together read
    each sample exactly once. Their shares may differ by a batch; no process may wait for another
    inside the loop.

    Args:
        length: number of samples.
        batch_size: samples of a batch, at least 1.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        starts = range(rank * batch_size, length, world_size * batch_size)
        self._batches = [range(start, min(start + batch_size, length)) for start in starts]

    def __iter__(self) -> Iterator[list[int]]:
        return map(list, self._batches)

    def __len__(self) -> int:
        return len(self._batches)
