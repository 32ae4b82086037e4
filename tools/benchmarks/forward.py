"""A forward pass of the whole model, from noise with a scribble to keypoints and masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.inputs import autocast, build, random_batch

UNIT = "image"
FLOOR = "counted"
FLOOR_BY = ("amp", "tf32")
DEFAULTS: dict[str, Any] = {
    "config_file": "config/uniphd.py",
    "height": 480,
    "width": 640,
    "batch_size": 1,
    "operator": "compiled",
    "packed": True,  # linear layers (models/performance)
    "keep_memory": True,  # models/performance/memory.py
    "compile": None,  # a backend of torch.compile, such as "inductor"
    "tf32": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "formula": {"operator": "pytorch", "uncounted": True},
    "compiled": {},
    "compiled-bfloat16": {"amp": "bfloat16"},
    "plain-linear": {"packed": False},
    "fresh-memory": {"keep_memory": False},
    "tf32": {"tf32": True, "needs": "cuda"},
    "torch-compile": {"compile": "inductor", "on_request": True},
    "torch-compile-bfloat16": {"compile": "inductor", "amp": "bfloat16", "on_request": True},
}
OLDER = ("formula", "compiled", "compiled-bfloat16")


def prepare(options: dict[str, Any]) -> Callable[[], int]:
    """A round is one forward pass of a batch."""
    model, *_ = build(options)
    model.eval()
    samples, prompt = random_batch(options)
    run = torch.compile(model, backend=options["compile"]) if options["compile"] else model

    @torch.inference_mode()
    def forward() -> int:
        with autocast(options):
            run(samples, prompt)
        return len(prompt.points)

    return forward
