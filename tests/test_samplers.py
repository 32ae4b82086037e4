"""Order of the samples: batches of the processes, and blocks of samples of one image."""

from __future__ import annotations

import logging
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from datasets import build_loader
from datasets.samplers import EvaluationBatches, TrainingBatches, TrainingOrder
from util.errors import UserError
from util.logging import LOGGER_NAME


def random_groups(seed: int, images: int = 30) -> list[list[list[int]]]:
    """Images of one to five people with one to four samples each; samples in any order."""
    generator = np.random.default_rng(seed)
    sizes = [generator.integers(1, 5, generator.integers(1, 6)).tolist() for _ in range(images)]
    order = iter(generator.permutation(sum(map(sum, sizes))).tolist())
    return [[[next(order) for _ in range(size)] for size in people] for people in sizes]


def blocks_of(groups, together: int, epoch: int = 0) -> list[list[int]]:
    """The order of an epoch."""
    order = TrainingOrder(groups, 5, together)
    blocks = order.blocks(epoch)
    assert blocks.shape == (len(order), together)
    return blocks.tolist()


def batches_of(samplers, epoch: int = 0, first_step: int = 0) -> list[list[list[int]]]:
    """The batches of every process."""
    for sampler in samplers:
        sampler.start(epoch, first_step)
    batches = [list(sampler) for sampler in samplers]
    assert [len(own) for own in batches] == [len(sampler) for sampler in samplers]
    assert len({len(own) for own in batches}) == 1
    return batches


def samplers_of(length: int, batch_size: int, world_size: int, rounds: int = 1, together: int = 1):
    """The samplers of all processes: an image with `together` people after the other."""
    groups = [[[i * together + k] for k in range(together)] for i in range(length // together)]
    order = TrainingOrder(groups, 5, together)
    return [
        TrainingBatches(order, batch_size, rank, world_size, rounds) for rank in range(world_size)
    ]


def global_batches(samplers, epoch: int = 0, first_step: int = 0) -> list[list[int]]:
    """What every step learns from: what counts, in the order of the parts."""
    batches = batches_of(samplers, epoch, first_step)
    steps = []
    for step in range(first_step, samplers[0].steps):
        parts = {}
        for sampler, own in zip(samplers, batches, strict=True):
            for number in range(sampler.rounds):
                batch = own[(step - first_step) * sampler.rounds + number]
                assert batch
                if sampler.counts(step, number):
                    parts[sampler.part(number)] = batch
        steps.append([sample for part in sorted(parts) for sample in parts[part]])
    return steps


@pytest.mark.parametrize("length", [1, 10, 23, 24])
def test_what_a_step_learns_from_does_not_depend_on_the_processes(length):
    alone = global_batches(samplers_of(length, 12, 1))
    assert sorted(sum(alone, [])) == list(range(length))  # everything once
    assert [len(step) for step in alone[:-1]] == [12] * (len(alone) - 1)
    for batch_size, world_size, rounds in ((6, 2, 1), (3, 4, 1), (3, 2, 2), (3, 1, 4), (1, 3, 4)):
        samplers = samplers_of(length, batch_size, world_size, rounds)
        assert global_batches(samplers) == alone
        assert all(len(b) <= batch_size for own in batches_of(samplers) for b in own)
    assert length == 1 or global_batches(samplers_of(length, 12, 1), epoch=1) != alone


def test_a_run_goes_on_at_any_step_on_any_number_of_processes():
    four = samplers_of(50, 2, 4)
    whole = global_batches(four)
    for world_size in (1, 2, 3, 5):
        samplers = samplers_of(50, 2, world_size)
        for sampler in samplers:
            sampler.load_state_dict(four[0].state_dict(), within_epoch=True)
        assert global_batches(samplers, first_step=3) == whole[3:]


def test_other_batches_are_refused_within_an_epoch_and_told_of_after_one(caplog):
    state = samplers_of(50, 2, 4)[0].state_dict()
    (same,) = samplers_of(50, 4, 1, rounds=2)
    same.load_state_dict(state, within_epoch=True)
    assert same.parts == 2 and not caplog.records
    (other,) = samplers_of(50, 4, 1)
    with pytest.raises(UserError, match=r"8 samples a step; the settings make it 4.*batch_size=2"):
        other.load_state_dict(state, within_epoch=True)
    logging.getLogger(LOGGER_NAME).propagate = True
    other.load_state_dict(state, within_epoch=False)
    assert other.parts == 1 and "8 samples a step, this run does from 4" in caplog.text


@pytest.mark.parametrize(("length", "batch_size"), [(10, 1), (10, 3), (7, 2), (2, 4)])
def test_evaluation_batches_are_those_of_a_process_alone(length, batch_size):
    (alone,) = batches_of_evaluation(length, batch_size, 1)
    assert sum(alone, []) == list(range(length))
    for world_size in (2, 3):
        shares = batches_of_evaluation(length, batch_size, world_size)
        assert sorted(sum(shares, [])) == alone
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def batches_of_evaluation(length: int, batch_size: int, world_size: int) -> list[list[list[int]]]:
    """The batches of every process."""
    samplers = [EvaluationBatches(length, batch_size, r, world_size) for r in range(world_size)]
    batches = [list(sampler) for sampler in samplers]
    assert [len(own) for own in batches] == [len(sampler) for sampler in samplers]
    return batches


def test_orders_are_those_of_earlier_versions():
    # Runs that were begun before blocks were mended go on bit by bit.
    groups = [[[0], [2]], [[3, 1]], [[4]]]
    assert blocks_of(groups, 1) == [[0], [3], [2], [4], [1]]
    pairs = [[[i], [i + 1]] for i in range(0, 12, 2)]
    assert blocks_of(pairs, 2) == [[9, 8], [1, 0], [6, 7], [4, 5], [3, 2], [11, 10]]


@pytest.mark.parametrize("together", [2, 3, 4])
def test_blocks_are_of_one_image_and_of_different_people(together):
    for seed in range(8):
        groups = random_groups(seed)
        image = {s: i for i, people in enumerate(groups) for person in people for s in person}
        person = {s: (i, j) for i, p in enumerate(groups) for j, own in enumerate(p) for s in own}
        size_of_image = Counter(image.values())
        blocks = blocks_of(groups, together, epoch=seed)
        assert set(sum(blocks, [])) == set(image)
        for block in blocks:
            if any(size_of_image[image[sample]] == 1 for sample in block):
                assert all(size_of_image[image[sample]] == 1 for sample in block)
                continue
            assert len({image[sample] for sample in block}) == 1
            people = len(groups[image[block[0]]])
            in_block = Counter(person[sample] for sample in block)
            # Nobody twice where there are enough people, else all about equally often.
            assert max(in_block.values()) <= -(-together // people)


def test_odd_numbers_of_samples_stay_with_their_image():
    groups = [[[3 * i], [3 * i + 1], [3 * i + 2]] for i in range(40)]
    for first, second in blocks_of(groups, 2):
        assert first // 3 == second // 3 and first != second


def test_no_more_samples_are_read_again_than_fill_the_blocks():
    groups = [[[0], [1], [2]], [[3, 4], [5, 6]], [[7]], [[8]], [[9]]]
    order = sum(blocks_of(groups, 2), [])
    counts = Counter(order)
    assert len(order) == 4 + 4 + 4 and set(order) == set(range(10))
    assert sum(counts[i] for i in (0, 1, 2)) == 4
    assert [counts[i] for i in (3, 4, 5, 6)] == [1] * 4


def test_one_person_with_most_samples_meets_the_other_every_time():
    order = sum(blocks_of([[[0, 1, 2], [3]]], 2), [])
    assert sorted(order) == [0, 1, 2, 3, 3, 3]
    assert all((a == 3) != (b == 3) for a, b in zip(order[::2], order[1::2], strict=True))


def test_order_changes_with_the_epoch_and_not_by_chance():
    groups = random_groups(0)
    first, second = (blocks_of(groups, 2, epoch) for epoch in (0, 1))
    assert first != second
    assert first == blocks_of(groups, 2, 0)


def loader(batch_size: int, prompts_per_image: int):
    groups = [[[2 * i], [2 * i + 1]] for i in range(6)]
    dataset = SimpleNamespace(training=True, image_groups=lambda: groups)
    cfg = SimpleNamespace(
        seed=0,
        batch_size=batch_size,
        num_workers=0,
        pad_divisor=16,
        prompts_per_image=prompts_per_image,
        share_image_features=False,
        accumulation_steps=1,
        pad_sides=[],
    )
    return build_loader(cfg, dataset)


def test_blocks_do_not_straddle_batches():
    batches = list(loader(4, 2).batch_sampler)
    assert [len(batch) for batch in batches] == [4, 4, 4]
    for batch in batches:
        assert sorted(Counter(sample // 2 for sample in batch).values()) == [2, 2]
    with pytest.raises(UserError, match="multiple of prompts_per_image.*got 4 and 3"):
        loader(4, 3)
    with pytest.raises(UserError, match="prompts_per_image has to be at least 1, got 0"):
        loader(4, 0)
