"""A checkpoint of a training: what the training waits for, and the whole way to the disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.inputs import build

UNIT = "checkpoint"
DEFAULTS: dict[str, Any] = {
    "config_file": "config/uniphd.py",
    "operator": "compiled",
    "tf32": False,
    "to_disk": False,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "copy": {},  # taken between two steps; writing goes on beside them
    "to-disk": {"to_disk": True},
}
OLDER = ()


def prepare(options: dict[str, Any]) -> Callable[[], int]:
    """A round is one checkpoint of the model and AdamW's two means."""
    from util import checkpoint_files
    from util.checkpoint_writer import CheckpointWriter

    weights = build(options)[0].state_dict()
    means = {name: {n: torch.zeros_like(w) for n, w in weights.items()} for name in ("m", "v")}
    state = {"model": weights, "optimizer": means}
    writer = CheckpointWriter()
    folder = tempfile.TemporaryDirectory()

    def write(copy: Any) -> None:
        if options["to_disk"]:
            checkpoint_files.save(Path(folder.name) / "checkpoint.pth", copy)

    def save() -> int:
        writer.submit(state, write)
        if options["to_disk"]:
            writer.wait()
        return 1

    return save
