"""Multi-scale deformable attention alone, forward and backward, at the model's shapes.

`models/uniphd/ops/benchmark.py` is the finer table (both shapes, forward alone, memory); here the
operator is measured as everything else is: in processes of its own, against a floor, and against
older commits.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.worker import synchronize

UNIT = "call"
FLOOR = "counted"
FLOOR_BY = ("dtype", "shape")
DEFAULTS: dict[str, Any] = {
    "shape": "encoder",  # or "decoder"
    "batch_size": 1,
    "dtype": "float32",
    "implementation": "compiled",  # "formula", or on a GPU "published"
    "seconds": 0.2,  # of a round, about
}
_BFLOAT16 = {"dtype": "bfloat16"}
_FORMULA = {"implementation": "formula", "uncounted": True}
_PUBLISHED = {"implementation": "published", "uncounted": True, "needs": "cuda"}
VARIANTS: dict[str, dict[str, Any]] = {
    "formula": _FORMULA,
    "published": _PUBLISHED,
    "compiled": {},
    "formula-bfloat16": {**_FORMULA, **_BFLOAT16},
    "published-bfloat16": {**_PUBLISHED, **_BFLOAT16},
    "compiled-bfloat16": _BFLOAT16,
}
OLDER = ("formula", "compiled", "formula-bfloat16", "compiled-bfloat16")

_INPUTS = Path(__file__).resolve().parents[2] / "models" / "uniphd" / "ops" / "random_inputs.py"


def implementation(options: dict[str, Any]) -> Callable[..., Tensor]:
    """The function to measure, built where it has to be."""
    from models.uniphd.ops import extension, ms_deform_attn_pytorch

    if options["implementation"] == "formula":
        return ms_deform_attn_pytorch
    if options["implementation"] == "published":
        from models.uniphd.ops.comparison import load_plain

        return load_plain()
    extension.load(torch.device(options["device"]).type)
    return torch.ops.uniphd.ms_deform_attn


def model_inputs(options: dict[str, Any]) -> list[Tensor]:
    """Arguments at a shape of the model: ours, whatever commit is measured."""
    spec = importlib.util.spec_from_file_location("benchmarks_random_inputs", _INPUTS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dtype = getattr(torch, options["dtype"])
    return module.model_inputs(
        options["shape"], options["batch_size"], dtype, str(options["device"])
    )


def prepare(options: dict[str, Any]) -> Callable[[], int]:
    """A round is as many calls, forward and backward, as take about `seconds`."""
    function = implementation(options)
    inputs = model_inputs(options)
    leaves = [inputs[0], inputs[3], inputs[4]]
    for leaf in leaves:
        leaf.requires_grad_()
    device = torch.device(options["device"])
    calls = 1

    def call() -> int:
        for _ in range(calls):
            output = function(*inputs)
            torch.autograd.grad(output, leaves, output.detach())
        return calls

    call()
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    calls = max(1, round(options["seconds"] / (time.perf_counter() - start)))
    return call
