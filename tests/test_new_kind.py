"""Another kind of prompt, made without any change to the project: a box, as five points."""

from __future__ import annotations

import argparse
import json
import math

import numpy as np
import pytest
import torch
from conftest import write_refhuman
from launch import ROOT

import main
import predict
from datasets import prompts
from datasets.prompts import PositionalPrompt, PromptKind, parse_numbers, points_inside, required
from util.errors import UserError
from util.logging import read_json_lines


class BoxPrompt(PositionalPrompt):
    """Four corners and the centre of a box per image: points [B, 5, 2]."""


def box_points(boxes):
    """[..., 4] (left, top, right, bottom) → [..., 5, 2] corners and centre."""
    left, top, right, bottom = boxes.unbind(-1)
    x = torch.stack([left, right, right, left, (left + right) / 2], dim=-1)
    y = torch.stack([top, top, bottom, bottom, (top + bottom) / 2], dim=-1)
    return torch.stack([x, y], dim=-1)


class BoxKind(PromptKind):
    """A box around the person."""

    name = "box"
    metavar = "X1,Y1,X2,Y2"
    help = "left, top, right and bottom of a box around the person"

    def from_targets(self, targets, generators=None):
        boxes = torch.cat([required(target, "boxes", self.name) for target in targets])
        sizes = torch.stack([target["size"] for target in targets]).flip(-1)
        corners = torch.cat(
            [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=-1
        )
        if generators is not None:  # a hand is not exact
            drawn = np.stack([generator.normal(0, 0.01, 4) for generator in generators])
            corners = corners + torch.from_numpy(drawn).float()
        return BoxPrompt(box_points(corners * sizes.repeat(1, 2)))

    def parse(self, text):
        numbers = parse_numbers(text)
        if len(numbers) != 4:
            raise argparse.ArgumentTypeError(f"expected {self.metavar}, got '{text}'")
        return numbers

    def from_user(self, value, height, width):
        corners = points_inside(
            torch.as_tensor(value).reshape(2, 2), "box", (2, 2), height=height, width=width
        )
        return BoxPrompt(box_points(corners.flatten()[None]))


@pytest.fixture
def box_kind():
    """Registered for one test."""
    kind = BoxKind()
    prompts.register(kind)
    yield kind
    del prompts.PROMPT_KINDS[kind.name]


SMALL = [
    "hidden_dim=64", "num_heads=4", "feedforward_dim=32", "encoder_layers=1", "decoder_layers=2",
    "num_groups=4", "backbone_options.embed_dim=8", "backbone_options.num_heads=1,1,2,2",
    "eval_max_side=64", "batch_size=3", "eval_batch_size=2", "num_workers=0", "lr_warmup_steps=0",
    "epochs=1", "dataset=refhuman", "prompts_per_image=1",
]  # fmt: skip


def test_a_new_kind_trains_evaluates_and_predicts(box_kind, tmp_path):
    data = write_refhuman(tmp_path / "data", size=(64, 64))
    output = tmp_path / "out"
    common = ["-c", str(ROOT / "config" / "uniphd_tiny.py"), "--coco_path", str(data)]
    common += ["--device", "cpu", "--output_dir", str(output)]
    options = ["--options", *SMALL, "prompt_probabilities.box=1.0"]
    arguments = [*common, "--train_trigger", "box", "--eval_trigger", "box,text"]
    assert main.main([*arguments, "--save_images", "2", *options]) == 0
    record = read_json_lines(output / "log.txt")[0]
    assert record["step"] == 2  # six pairs, three per step, none of them with another kind
    assert math.isfinite(record["train"]["loss_box"]) and "loss_text" not in record["train"]
    assert list(record["eval"]) == ["box", "text"]
    assert record["eval"]["box"]["num_samples"] == 5
    assert len(list((output / "images").glob("*_box.png"))) == 2

    checkpoint = output / "checkpoint.pth"
    resume = ["--eval", "--eval_trigger", "box", "--resume", str(checkpoint)]
    assert main.main([*common, *resume, *options]) == 0
    assert list(json.loads((output / "eval.json").read_text())) == ["box"]

    image = next((data / "images").iterdir())
    drawn = tmp_path / "drawn.png"
    arguments = ["--checkpoint", str(checkpoint), "--image", str(image), "--device", "cpu"]
    assert predict.main([*arguments, "--box", "5,6,40,50", "--output", str(drawn)]) == 0
    written = json.loads(drawn.with_suffix(".json").read_text())
    assert written["prompt"] == {"box": [5.0, 6.0, 40.0, 50.0]}


def test_the_kind_decides_what_the_model_sees(box_kind):
    target = {
        "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.4]]),
        "size": torch.tensor([100, 50]),
        "image_id": 1,
    }
    prompt = box_kind.from_targets([target, target])
    assert prompt.points.shape == (2, 5, 2)
    expected = torch.tensor([[20.0, 30], [30, 30], [30, 70], [20, 70], [25, 50]])
    torch.testing.assert_close(prompt.points[0], expected)
    with pytest.raises(UserError, match="leaves the image, which is 50 pixels wide"):
        box_kind.from_user([5, 6, 60, 50], height=100, width=50)


def test_without_it_the_name_is_unknown():
    sampler = {"box": 1.0}
    with pytest.raises(UserError, match="Unknown kind of prompt 'box'.*text, point, scribble"):
        prompts.PromptSampler(sampler, seed=1)
