"""Order of the samples: shares of the processes, and blocks of samples of one image."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from datasets import build_loader
from datasets.samplers import EvaluationSampler, TrainingSampler
from util.errors import UserError


def random_groups(seed: int, images: int = 30) -> list[list[list[int]]]:
    """Images of one to five people with one to four samples each; samples in any order."""
    generator = np.random.default_rng(seed)
    sizes = [generator.integers(1, 5, generator.integers(1, 6)).tolist() for _ in range(images)]
    order = iter(generator.permutation(sum(map(sum, sizes))).tolist())
    return [[[next(order) for _ in range(size)] for size in people] for people in sizes]


def shares_of(groups, together: int, world_size: int, epoch: int = 0) -> list[list[int]]:
    """The order of every process."""
    samplers = [
        TrainingSampler(groups, 5, rank, world_size, together) for rank in range(world_size)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    shares = [list(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [len(sampler) for sampler in samplers]
    return shares


@pytest.mark.parametrize(("length", "world_size"), [(10, 1), (10, 3), (7, 2), (2, 4)])
def test_samplers_share_the_data(length, world_size):
    evaluation = [list(EvaluationSampler(length, rank, world_size)) for rank in range(world_size)]
    assert sorted(sum(evaluation, [])) == list(range(length))
    groups = [[[index]] for index in range(length)]
    orders = [shares_of(groups, 1, world_size, epoch) for epoch in (0, 1)]
    for shares in orders:
        assert len({len(share) for share in shares}) == 1
        assert set(sum(shares, [])) == set(range(length))
        assert len(shares[0]) * world_size < length + world_size
    assert length == 2 or orders[0] != orders[1]


def test_orders_are_those_of_earlier_versions():
    # Runs that were begun before blocks were mended go on bit by bit.
    groups = [[[0], [2]], [[3, 1]], [[4]]]
    assert shares_of(groups, 1, 1) == [[0, 3, 2, 4, 1]]
    pairs = [[[i], [i + 1]] for i in range(0, 12, 2)]
    assert shares_of(pairs, 2, 1) == [[9, 8, 1, 0, 6, 7, 4, 5, 3, 2, 11, 10]]
    assert shares_of(pairs, 2, 2) == [[9, 8, 6, 7, 3, 2], [1, 0, 4, 5, 11, 10]]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("together", [2, 3, 4])
def test_blocks_are_of_one_image_and_of_different_people(together, world_size):
    for seed in range(8):
        groups = random_groups(seed)
        image = {s: i for i, people in enumerate(groups) for person in people for s in person}
        person = {s: (i, j) for i, p in enumerate(groups) for j, own in enumerate(p) for s in own}
        size_of_image = Counter(image.values())
        shares = shares_of(groups, together, world_size, epoch=seed)
        assert set(sum(shares, [])) == set(image)
        assert len({len(share) for share in shares}) == 1
        for share in shares:
            assert len(share) % together == 0
            for start in range(0, len(share), together):
                block = share[start : start + together]
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
    for world_size in (1, 2):
        for share in shares_of(groups, 2, world_size):
            for first, second in zip(share[::2], share[1::2], strict=True):
                assert first // 3 == second // 3 and first != second


def test_no_more_samples_are_read_again_than_fill_the_blocks():
    groups = [[[0], [1], [2]], [[3, 4], [5, 6]], [[7]], [[8]], [[9]]]
    (order,) = shares_of(groups, 2, 1)
    counts = Counter(order)
    assert len(order) == 4 + 4 + 4 and set(order) == set(range(10))
    assert sum(counts[i] for i in (0, 1, 2)) == 4
    assert [counts[i] for i in (3, 4, 5, 6)] == [1] * 4


def test_one_person_with_most_samples_meets_the_other_every_time():
    (order,) = shares_of([[[0, 1, 2], [3]]], 2, 1)
    assert sorted(order) == [0, 1, 2, 3, 3, 3]
    assert all((a == 3) != (b == 3) for a, b in zip(order[::2], order[1::2], strict=True))


def test_order_changes_with_the_epoch_and_not_by_chance():
    groups = random_groups(0)
    first, second = (shares_of(groups, 2, 1, epoch) for epoch in (0, 1))
    assert first != second
    assert first == shares_of(groups, 2, 1, 0)


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
