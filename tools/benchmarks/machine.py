"""What the machine can do: matrix products a second by type, and bytes through memory a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.worker import synchronize

# (rows, inputs, outputs): Swin's first stage and the encoder's feed-forward at 480 x 640, a square.
SIZES = ((19200, 96, 384), (6380, 256, 2048), (6380, 2048, 256), (2048, 2048, 2048))
GPU_SIZES = ((102080, 256, 2048), (102080, 2048, 256), (8192, 8192, 8192))
SECONDS = 0.12  # of each product and of each copy
COPIED_BYTES = 2**28


def measure(device: torch.device) -> dict[str, Any]:
    """The best rates that are found in about two seconds.

    Returns:
        `flops`: operations a second by type ("float32", "bfloat16", on a GPU also "float16" and
        "tf32"); `bytes`: read and written a second; on a GPU also `device`: what it is, and the
        `memory_bytes` that are free.
    """
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if device.type == "cuda":
        types |= {"float16": torch.float16, "tf32": torch.float32}
    flops = {}
    for name, dtype in types.items():
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        flops[name] = max(
            _product_rate(size, dtype, device)
            for size in (GPU_SIZES if device.type == "cuda" else SIZES)
        )
    rates = {"flops": flops, "bytes": _bandwidth(device)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        torch.cuda.empty_cache()
        rates["memory_bytes"] = torch.cuda.mem_get_info(device)[0]
        rates["device"] = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return rates


def _product_rate(size: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> float:
    rows, inputs, outputs = size
    values = torch.randn(rows, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)
    result = values.new_empty(rows, outputs)
    seconds = _best_seconds(lambda: torch.mm(values, weight.T, out=result), device)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        # oneDNN is not what torch.mm takes for float32, and faster on some processors.
        def product() -> Tensor:
            return torch.ops.mkldnn._linear_pointwise(values, weight, None, "none", [], "")

        seconds = min(seconds, _best_seconds(product, device))
    return 2 * rows * inputs * outputs / seconds


def _bandwidth(device: torch.device) -> float:
    count = COPIED_BYTES // 4
    first, second, third = (torch.ones(count, device=device) for _ in range(3))
    copy = 2 * COPIED_BYTES / _best_seconds(lambda: second.copy_(first), device)
    triad = (
        3
        * COPIED_BYTES
        / _best_seconds(lambda: torch.add(first, second, alpha=2, out=third), device)
    )
    return max(copy, triad)


def _best_seconds(function: Callable[[], Any], device: torch.device) -> float:
    """The shortest of several runs."""
    function()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS or best == float("inf"):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
