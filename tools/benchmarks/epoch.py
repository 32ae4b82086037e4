"""Training of the tiny model with everything: images are drawn, batched, trained on.

A round is an epoch of `steps` batches with the configuration's own loader and kinds of prompt.  Its
worker processes start and end with the round, or wait for the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.inputs import build
from benchmarks.training import training

UNIT = "sample"
DEFAULTS: dict[str, Any] = {
    "config_file": "config/uniphd_tiny.py",
    "epoch": 30,  # after the configuration's easy stages
    "steps": 8,
    "operator": "compiled",
    "tf32": False,
    "settings": {},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "bfloat16": {"amp": "bfloat16"},
    "float32": {},
}
OLDER = ("bfloat16", "float32")


def prepare(options: dict[str, Any]) -> Callable[[], int]:
    """A round is an epoch of `steps` batches; the same samples every time."""
    model, criterion, _, cfg = build(options)
    cfg.merge_from_dict({"synthetic.train_length": options["steps"] * cfg.batch_size})
    from datasets import build_dataset, build_loader

    dataset = build_dataset(cfg, "train")
    loader = build_loader(cfg, dataset)
    train = training(options, model, criterion, cfg, loader, dict(cfg.prompt_probabilities))

    def epoch() -> int:
        train(options["epoch"])
        return len(dataset)

    return epoch
