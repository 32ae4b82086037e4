"""The trained tiny model of the repository."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from small_models import REPOSITORY

from datasets.evaluation import ReferringEvaluator
from datasets.synthetic import SyntheticRefHuman
from datasets.transforms import EvaluationTransform
from models.uniphd.predictor import Predictor
from util import checkpoint

PATH = REPOSITORY / "weights" / "uniphd_tiny.safetensors"
NUM_IMAGES = 24


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_checkpoint(device="cpu")  # the default is this checkpoint


@pytest.fixture(scope="module")
def easy_images():
    """Two people of different colours, never seen in training."""
    return SyntheticRefHuman(
        EvaluationTransform(128),
        training=False,
        length=NUM_IMAGES,
        image_size=(128, 128),
        num_people=(2, 2),
        difficulty=0.0,
    )


def test_it_is_small_and_knows_its_settings():
    assert PATH.stat().st_size <= 8_000_000
    content = checkpoint.load(PATH)
    assert content["config"]["text_encoder"] == "config/tiny_text_encoder"
    types = {value.dtype for value in content["model"].values() if value.is_floating_point()}
    assert types == {torch.float16}


@pytest.mark.parametrize(("kind", "identity"), [("scribble", 0.95), ("point", 0.95), ("text", 0.8)])
def test_it_finds_the_right_person(predictor, easy_images, kind, identity):
    evaluator = ReferringEvaluator(easy_images.ground_truth())
    for index in range(NUM_IMAGES):
        image, entry, annotation = easy_images.load_pair(index)
        predictor.set_image(image)
        scribble = torch.tensor(annotation["scribble"]).float().reshape(-1, 12, 2)[0]
        prompt = {
            "text": {"text": entry["caption"]},
            "scribble": {"scribble": scribble.tolist()},
            "point": {"point": scribble[5].tolist()},
        }[kind]
        prediction = predictor.predict(**prompt)
        result = {
            "scores": torch.tensor([prediction.score]),
            "boxes": torch.from_numpy(prediction.box)[None],
            "keypoints": torch.from_numpy(prediction.keypoints)[None],
            "masks": torch.from_numpy(prediction.mask)[None],
        }
        evaluator.update([entry["id"]], [result])
    evaluator.synchronize()
    metrics = evaluator.summarize()
    assert metrics["identity_chance"] == 0.5
    assert metrics["identity_accuracy"] >= identity
    assert metrics["oiou"] >= 0.6
    assert metrics["keypoint_ap"] >= 0.75


def test_it_is_the_default_of_predict(easy_images, tmp_path):
    image, entry, _ = easy_images.load_pair(0)
    Image.fromarray(image).save(tmp_path / "image.png")
    command = [sys.executable, str(REPOSITORY / "predict.py"), "--image", "image.png"]
    subprocess.run(
        [*command, "--text", entry["caption"], "--output", "found.png"], cwd=tmp_path, check=True
    )
    assert set(json.loads((tmp_path / "found.json").read_text())["keypoints"]) >= {"nose"}
    assert (tmp_path / "found.png").is_file()
