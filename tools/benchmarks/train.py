"""A whole training step on noise: forward, matching, losses, backward, clipping and AdamW.

It is the checkout's own `engine.train_one_epoch` over a loader of one batch, so that whatever the
project does in a step is in it.  The tiny model:

    python tools/benchmark.py --what train -c config/uniphd_tiny.py --side 128 --batch_size 16
"""

from __future__ import annotations

from typing import Any

from benchmarks.inputs import build
from benchmarks.training import NoiseLoader, training

UNIT = "image"
FLOOR = "counted"
FLOOR_BY = ("amp", "tf32")
DEFAULTS: dict[str, Any] = {
    "config_file": "config/uniphd.py",
    "height": 640,
    "width": 640,
    "batch_size": 2,
    "steps": 1,  # of a round
    "operator": "compiled",
    "keep_memory": True,  # models/performance/memory.py
    "compile": None,  # a backend of torch.compile, such as "inductor"
    "form": "ours",  # or "plain" (benchmarks/plain.py)
    "tf32": False,
    "settings": {},
}
_CHECKPOINTING = {"backbone_checkpointing": True, "encoder_checkpointing": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"amp": "bfloat16"},
    "fresh-memory": {"keep_memory": False, "uncounted": True},
    "checkpointing": {"own_settings": _CHECKPOINTING, "uncounted": True},
    "tf32": {"tf32": True, "needs": "cuda"},
    "float16": {"amp": "float16", "needs": "cuda"},
    "plain": {"form": "plain", "on_request": True, "uncounted": True},
    "torch-compile-bfloat16": {"compile": "inductor", "amp": "bfloat16", "on_request": True},
}
OLDER = ("float32", "bfloat16", "checkpointing")

# What AdamW reads of every number that is trained (weight, gradient, two means), and writes.
_OPTIMIZER_ACCESSES = 7


class TrainingRound:
    """`steps` training steps.

    Args:
        options: as above.

    Attributes:
        extra_bytes: what the optimizer moves.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        settings = {**options["settings"], **options.get("own_settings", {})}
        model, criterion, _, cfg = build({**options, "settings": settings})
        loader = NoiseLoader(options, options["steps"])
        self.train = training(options, model, criterion, cfg, loader, {"scribble": 1.0})
        self.units = options["steps"] * options["batch_size"]
        trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        self.extra_bytes = options["steps"] * _OPTIMIZER_ACCESSES * trained
        self.number = 0

    def __call__(self) -> int:
        """Train; returns the number of images."""
        self.train(self.number)
        self.number += 1
        return self.units


def prepare(options: dict[str, Any]) -> TrainingRound:
    """A round is `steps` steps of a batch."""
    return TrainingRound(options)
