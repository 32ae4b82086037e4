"""The predictor: an image is set, then asked with a scribble, a point and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.inputs import autocast, build

UNIT = "image"
FLOOR = "counted"
FLOOR_BY = ("amp",)
DEFAULTS: dict[str, Any] = {
    "config_file": "config/uniphd.py",
    "height": 480,
    "width": 640,
    "operator": "compiled",
    "tf32": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"amp": "bfloat16"},
}
OLDER = ("float32", "bfloat16")


def prepare(options: dict[str, Any]) -> Callable[[], int]:
    """A round is one image with three prompts."""
    from models.uniphd.predictor import Predictor

    model, _, postprocessor, cfg = build(options)
    height, width = options["height"], options["width"]
    predictor = Predictor(
        model, postprocessor, max_side=max(height, width), divisor=cfg.pad_divisor
    )
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    scribble = generator.uniform(0, [width, height], (12, 2)).tolist()
    prompts = (
        {"scribble": scribble},
        {"point": (width / 2, height / 2)},
        {"text": "the person in the middle"},
    )

    def predict() -> int:
        with autocast(options):
            predictor.set_image(image)
            for prompt in prompts:
                predictor.predict(**prompt)
        return 1

    return predict
