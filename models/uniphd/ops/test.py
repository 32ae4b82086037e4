"""Checks whatever is built: `python test.py` prints one line per check and exits with 1 on failure.

The compiled operators are compared, forward and gradients, with the pure PyTorch formula in
float64, and their gradients with finite differences.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import _repository  # noqa: F401  # makes the project's modules importable
import torch
from torch import Tensor

from models.uniphd.ops import extension, ms_deform_attn_pytorch
from models.uniphd.ops.random_inputs import random_inputs

# The largest allowed difference, relative to the largest number of the compared tensor.
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}
CASES = [
    # (levels' heights and widths, queries, heads, points, channels)
    ([(6, 9), (3, 5), (2, 2), (1, 1)], 20, 8, 4, 32),
    ([(8, 7), (4, 4), (2, 2)], 7, 4, 4, 16),
    ([(1, 1)], 1, 1, 1, 8),
    ([(5, 4), (4, 3), (3, 2), (2, 1), (1, 1)], 5, 2, 8, 64),
    ([(9, 2), (1, 7)], 3, 3, 3, 256),
    ([(3, 4)], 4, 2, 2, 37),
]


def compiled(*inputs: Tensor) -> Tensor:
    """The operator of the library that belongs to the tensors' device."""
    return torch.ops.uniphd.ms_deform_attn(*inputs)


def results(
    function: Callable[..., Tensor], inputs: list[Tensor], incoming: Tensor
) -> list[Tensor]:
    """Output and gradients of value, locations and weights, in float64."""
    value, shapes, starts, locations, weights = inputs
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (value, locations, weights)]
    output = function(leaves[0], shapes, starts, leaves[1], leaves[2])
    gradients = torch.autograd.grad(output, leaves, incoming.to(output.dtype))
    return [tensor.detach().double() for tensor in (output, *gradients)]


def largest_difference(case: tuple, dtype: torch.dtype, device: str) -> float:
    """Compiled against the formula in float64; the worst of output and gradients."""
    shapes, queries, heads, points, channels = case
    inputs = random_inputs(2, shapes, queries, heads, points, channels, dtype, device)
    generator = torch.Generator().manual_seed(1)
    incoming = torch.randn(2, queries, heads * channels, generator=generator).to(device, dtype)
    exact_inputs = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
    found = results(compiled, inputs, incoming)
    expected = results(ms_deform_attn_pytorch, exact_inputs, incoming.double())
    return max(
        ((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item()
        for a, b in zip(found, expected, strict=True)
    )


def check_library(library: str) -> list[tuple[str, bool]]:
    """(description, passed) of every check of the library "cpu" or "cuda"."""
    checks = []
    for case in CASES:
        for dtype, tolerance in TOLERANCES.items():
            difference = largest_difference(case, dtype, library)
            shapes, queries, heads, points, channels = case
            checks.append(
                (
                    f"{library}: {str(dtype)[6:]:8} levels {len(shapes)}, queries {queries}, heads "
                    f"{heads}, points {points}, channels {channels}: difference {difference:.1e}, "
                    f"allowed {tolerance:.0e}",
                    difference <= tolerance,
                )
            )
    value, shapes, starts, locations, weights = random_inputs(
        1, [(3, 4), (2, 2)], 3, 2, 2, 8, torch.float64, library
    )
    leaves = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    passed = torch.autograd.gradcheck(
        lambda value, locations, weights: compiled(value, shapes, starts, locations, weights),
        leaves,
        raise_exception=False,
        nondet_tol=1e-12,
    )
    checks.append((f"{library}: float64  gradients agree with finite differences", passed))
    return checks


def main() -> int:
    """Run the checks of every library that can be built here; the number of failures."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    failures = 0
    for library in extension.LIBRARIES:
        if library == "cuda" and not torch.cuda.is_available():
            print("cuda: skipped, there is no GPU")
            continue
        try:
            extension.load(library)
        except (RuntimeError, OSError) as error:
            print(f"FAILED {library}: can't be built: {error}")
            failures += 1
            continue
        for description, passed in check_library(library):
            print(f"{'ok    ' if passed else 'FAILED'} {description}")
            failures += not passed
    print("All checks passed." if failures == 0 else f"{failures} checks FAILED.")
    return failures


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
