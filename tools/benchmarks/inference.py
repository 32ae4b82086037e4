"""What an evaluation does on the device: a batch of images, each with a scribble, a point, a text.

The metrics are not in it (`--what eval`).
"""

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
    "batch_size": 2,
    "operator": "compiled",
    "tf32": False,
    "form": "ours",  # or "plain" (benchmarks/plain.py): everything anew for every prompt
}
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"amp": "bfloat16"},
    "tf32": {"tf32": True, "needs": "cuda"},
    "plain": {"form": "plain", "on_request": True, "uncounted": True},
}
OLDER = ("float32", "bfloat16")


def prepare(options: dict[str, Any]) -> Callable[[], int]:
    """A round is one batch with three kinds of prompt, to results in pixels."""
    from models.uniphd.prompt_encoder import PointPrompt, TextPrompt

    model, _, postprocessor, _ = build(options)
    model.eval()
    samples, scribble = random_batch(options)
    batch = options["batch_size"]
    prompts = (
        scribble,
        PointPrompt(scribble.points[:, 5:6]),
        TextPrompt(["the person in the middle"] * batch),
    )
    sizes = torch.tensor([[options["height"], options["width"]]] * batch)
    is_plain = options["form"] == "plain"
    if is_plain:
        from benchmarks.plain import PlainUniPHD, published_operator

        model = PlainUniPHD(model, published_operator(torch.device(options["device"]))).eval()

    @torch.inference_mode()
    def infer() -> int:
        shared: dict[str, Any] = {}
        if not is_plain:
            with autocast(options):
                shared = {"features": encode(model, samples)}
        for prompt in prompts:
            with autocast(options):
                outputs = model(samples, prompt, **shared)
            postprocessor(outputs, sizes, sizes)
        return batch

    return infer


def encode(model: torch.nn.Module, samples: Any) -> Any:
    """What all prompts of the images share; older commits call the backbone by its name."""
    return (getattr(model, "encode_image", None) or model.backbone)(samples)
