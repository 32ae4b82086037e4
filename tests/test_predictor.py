"""One image, several prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import small_config, small_model, write_roberta

from datasets.scribble import resample_stroke
from models import build_model
from models.uniphd.predictor import Predictor
from util import checkpoint
from util.errors import UserError


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    model, _, postprocessor = small_model(tmp_path_factory.mktemp("predictor"))
    return Predictor(model, postprocessor, max_side=96, divisor=16)


def image(height=60, width=90):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_prompts_on_one_image(predictor, monkeypatch):
    calls = []
    forward = predictor.model.backbone.forward
    monkeypatch.setattr(
        predictor.model.backbone, "forward", lambda x: (calls.append(1), forward(x))[1]
    )
    predictor.set_image(image())
    predictions = [
        predictor.predict(text="the man in red"),
        predictor.predict(point=(30, 20)),
        predictor.predict(scribble=[(10, 10), (30, 40), (50, 50)]),
    ]
    assert len(calls) == 1
    for prediction in predictions:
        assert prediction.keypoints.shape == (17, 3)
        assert prediction.mask.shape == (60, 90) and prediction.mask.dtype == bool
        assert prediction.box.shape == (4,)
        assert 0 < prediction.score < 1
        assert (prediction.keypoints[:, 0] <= 90).all() and (prediction.keypoints[:, 1] <= 60).all()


def test_the_shorter_side_is_the_evaluations(predictor):
    model, postprocessor = predictor.model, predictor.postprocessor
    other = Predictor(model, postprocessor, max_side=96, divisor=16, short_side=32)
    other.set_image(image(60, 90))
    assert other._encoded.size == (32, 48)
    other.set_image(image(20, 90))
    assert other._encoded.size == (21, 96)


def test_scale_of_points(predictor, monkeypatch):
    """A point at three quarters of the image is there in the resized image too."""
    seen = []
    forward = predictor.model.prompt_encoder.forward
    monkeypatch.setattr(
        predictor.model.prompt_encoder,
        "forward",
        lambda prompt, *rest: (seen.append(prompt), forward(prompt, *rest))[1],
    )
    predictor.set_image(image(30, 48))  # seen as 60 x 96
    predictor.predict(point=(36, 15))
    assert seen[0].points.tolist() == [[[72.0, 30.0]]]


def test_same_image_in_every_form(predictor, tmp_path):
    array = image()
    Image.fromarray(array).save(tmp_path / "image.png")
    boxes = []
    for form in (array, Image.fromarray(array), tmp_path / "image.png"):
        predictor.set_image(form)
        boxes.append(predictor.predict(point=(5, 5)).box)
    assert np.array_equal(boxes[0], boxes[1]) and np.array_equal(boxes[0], boxes[2])


def test_resample_stroke():
    stroke = torch.tensor([[0.0, 0.0], [6.0, 0.0], [6.0, 5.0]])
    points = resample_stroke(stroke, 12)
    expected = [[float(i), 0.0] for i in range(7)] + [[6.0, float(i)] for i in range(1, 6)]
    torch.testing.assert_close(points, torch.tensor(expected))
    same = resample_stroke(torch.tensor([[2.0, 3.0], [2.0, 3.0]]), 12)
    torch.testing.assert_close(same, torch.tensor([[2.0, 3.0]]).expand(12, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of text, point, scribble"),
        ({"text": "a", "point": (1, 1)}, "exactly one prompt: got text and point"),
        ({"text": "  "}, "text prompt is empty"),
        ({"point": (100, 5)}, "leaves the image, which is 90 pixels wide and 60 high"),
        ({"point": (1, 2, 3)}, r"Expected a point \(x, y\)"),
        ({"point": (float("nan"), 2)}, r"Expected a point \(x, y\)"),
        ({"scribble": [(1, 1)]}, r"Expected a scribble \[P, 2\]"),
        ({"scribble": "zigzag"}, r"Expected a scribble \[P, 2\]"),
    ],
)
def test_wrong_prompts(predictor, arguments, message):
    predictor.set_image(image())
    with pytest.raises(ValueError, match=message):
        predictor.predict(**arguments)


def test_wrong_images(predictor, tmp_path):
    with pytest.raises(ValueError, match=r"uint8 \[h, w, 3\] in RGB; got float64 \[4, 4, 3\]"):
        predictor.set_image(np.zeros((4, 4, 3)))
    with pytest.raises(FileNotFoundError, match="absent"):
        predictor.set_image(tmp_path / "absent.png")
    with pytest.raises(UserError, match="a file, a PIL image or an array; got list"):
        predictor.set_image([[0]])
    fresh = Predictor(predictor.model, predictor.postprocessor, 96, 16)
    with pytest.raises(RuntimeError, match="call set_image"):
        fresh.predict(text="a")


def test_a_failed_image_does_not_leave_the_one_before(predictor, tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no image")
    for wrong in (tmp_path / "absent.png", tmp_path / "text.png", np.zeros((4, 4)), None):
        predictor.set_image(image())
        predictor.predict(point=(5, 5))
        with pytest.raises(UserError):
            predictor.set_image(wrong)
        with pytest.raises(RuntimeError, match="No image is set"):
            predictor.predict(point=(5, 5))
    predictor.set_image(image())
    monkeypatch.setattr(predictor.model, "encode_image", lambda samples: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # for example where memory is short
        predictor.set_image(image(30, 30))
    with pytest.raises(RuntimeError, match="No image is set"):
        predictor.predict(point=(5, 5))


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ("pred_logits", r"\(score\)"),
        ("pred_keypoints", r"\(keypoints\)"),
        ("pred_boxes", r"\(box\)"),
        ("pred_masks", r"\(mask\)"),
    ],
)
def test_an_answer_that_is_not_finite_is_refused(predictor, monkeypatch, output, named):
    forward = predictor.model.forward

    def spoilt(*arguments, **more):
        outputs = forward(*arguments, **more)
        return {**outputs, output: outputs[output] * float("nan")}

    predictor.set_image(image())
    predictor.predict(point=(5, 5))
    monkeypatch.setattr(predictor.model, "forward", spoilt)
    with pytest.raises(UserError, match=f"not made of finite numbers {named}"):
        predictor.predict(point=(5, 5))


def test_from_checkpoint(tmp_path):
    cfg = small_config(write_roberta(tmp_path / "r"), eval_max_side=96)
    torch.manual_seed(0)
    model, _, postprocessor = build_model(cfg)
    checkpoint.save(tmp_path / "own.pth", {"model": model.state_dict(), "config": cfg.to_dict()})
    published = {"model": checkpoint.to_reference(model.state_dict())}
    checkpoint.save(tmp_path / "published.pth", published)
    boxes = []
    for predictor in (
        Predictor(model, postprocessor, 96, 16),
        Predictor.from_checkpoint(tmp_path / "own.pth", device="cpu"),
        Predictor.from_checkpoint(tmp_path / "published.pth", "cpu", config=cfg.to_dict()),
    ):
        predictor.set_image(image())
        boxes.append(predictor.predict(text="the man in red").box)
    assert np.array_equal(boxes[0], boxes[1]) and np.array_equal(boxes[0], boxes[2])
