"""A plain form of the published CUDA kernel, to compare with; nothing of the model uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.uniphd.ops import extension

Implementation = Callable[..., Tensor]


class Plain(torch.autograd.Function):
    """The plain form of the published CUDA kernel, in one type throughout."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor
    ) -> Tensor:
        """As `ms_deform_attn`."""
        inputs = (value, shapes, starts, locations.to(value.dtype), weights.to(value.dtype))
        inputs = tuple(tensor.contiguous() for tensor in inputs)
        ctx.save_for_backward(*inputs)
        ctx.types = (locations.dtype, weights.dtype)
        return torch.ops.uniphd_comparison.plain(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of value, locations and weights."""
        value, locations, weights = torch.ops.uniphd_comparison.plain_backward(
            gradient.contiguous(), *ctx.saved_tensors
        )
        return value, None, None, locations.to(ctx.types[0]), weights.to(ctx.types[1])


def load_plain() -> Implementation:
    """Compile csrc/comparison/plain.cu.

    Raises:
        RuntimeError, OSError: it cannot be compiled.
    """
    from torch.utils import cpp_extension

    cpp_extension.CUDA_HOME = str(extension.cuda_home())
    cpp_extension.load(
        name="uniphd_comparison",
        sources=[str(extension.SOURCE_FOLDER / "comparison" / "plain.cu")],
        extra_cuda_cflags=["-O3"],
        is_python_module=False,
    )
    return Plain.apply
