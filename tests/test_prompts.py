"""Kinds of prompt: what training draws, what evaluation takes, what is lacking."""

import argparse
from collections import Counter

import pytest
import torch

from datasets.prompts import (
    PointPrompt,
    PromptSampler,
    ScribblePrompt,
    TextPrompt,
    get_kind,
    parse_kinds,
)
from util.errors import UserError


def make_targets(count):
    return [
        {"image_id": i, "caption": f"caption {i}", "scribble": torch.arange(24.0).view(12, 2) + i}
        for i in range(count)
    ]


def test_kinds_follow_their_probabilities_and_nothing_else():
    sampler = PromptSampler({"text": 1.0, "scribble": 0.5, "point": 0.5}, seed=1)
    kinds = [sampler.kind(epoch=0, step=step) for step in range(2000)]
    counts = Counter(kinds)
    assert abs(counts["text"] / 2000 - 0.5) < 0.05
    assert abs(counts["scribble"] / 2000 - 0.25) < 0.05
    assert [sampler.kind(0, step) for step in range(50)] == kinds[:50]
    assert [sampler.kind(1, step) for step in range(50)] != kinds[:50]
    only_points = PromptSampler({"text": 0.0, "scribble": 0.0, "point": 0.1}, seed=1)
    assert {only_points.kind(0, step) for step in range(50)} == {"point"}


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ({"text": 0.0}, "all zero"),
        ({"text": -1.0, "point": 2.0}, "prompt_probabilities.text .* got -1.0"),
        ({"text": float("nan")}, "prompt_probabilities.text .* got nan"),
        ({"texts": 1.0}, "Unknown kind of prompt 'texts'.*Did you mean 'text'"),
    ],
)
def test_impossible_probabilities(probabilities, message):
    with pytest.raises(UserError, match=message):
        PromptSampler(probabilities, seed=1)


def test_prompts_of_a_batch_in_evaluation():
    targets = make_targets(3)
    text = get_kind("text").from_targets(targets)
    assert isinstance(text, TextPrompt) and text.captions == ["caption 0", "caption 1", "caption 2"]
    scribble = get_kind("scribble").from_targets(targets)
    assert isinstance(scribble, ScribblePrompt)
    assert torch.equal(scribble.points, torch.stack([t["scribble"] for t in targets]))
    point = get_kind("point").from_targets(targets)
    assert isinstance(point, PointPrompt)
    assert point.points.tolist() == [[[10.0 + i, 11.0 + i]] for i in range(3)]  # index 5


def test_training_points_are_the_published_ones():
    sampler = PromptSampler({"point": 1.0}, seed=1)

    def indices(epoch, targets):
        prompt = sampler.draw("point", targets, epoch)
        return [
            int(x - target["image_id"]) // 2
            for x, target in zip(prompt.points[:, 0, 0].tolist(), targets, strict=True)
        ]

    targets = make_targets(3)
    drawn = [index for epoch in range(40) for index in indices(epoch, targets)]
    assert set(drawn) == {4, 5, 6, 7}
    # A sample's point does not hang on the others of its batch.
    assert [indices(3, [target])[0] for target in targets] == indices(3, targets) == drawn[9:12]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "Image id 8 has no caption, which text prompts need"),
        ("point", "Image id 8 has no scribble, which point prompts need"),
        ("word", "Unknown kind of prompt 'word'; expected one of text, point, scribble"),
    ],
)
def test_a_sample_without_its_prompt(kind, message):
    with pytest.raises(UserError, match=message):
        get_kind(kind).from_targets([{"image_id": 8}])


def test_lists_of_kinds():
    assert parse_kinds("all") == ["text", "point", "scribble"]
    assert parse_kinds("point") == ["point"]
    assert parse_kinds("point, text,point") == ["point", "text"]
    with pytest.raises(argparse.ArgumentTypeError, match="unknown kind of prompt 'words'; expecte"):
        parse_kinds("text,words")
