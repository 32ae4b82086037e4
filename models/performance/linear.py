"""Linear layers whose weights are packed for oneDNN where no gradient is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "relu", "gelu"]

# Rows for which oneDNN chooses the layout of packed weights: it fits any larger number as well.
_PACKED_FOR_ROWS = 1024


@dataclass(frozen=True)
class _Packed:
    """Weights in the layout that oneDNN's kernels read without a copy.

    Attributes:
        weight: opaque, of the type that the layer computes in.
        bias: of the same type, or None.
        origin: what it was made from; see `_signature`.
    """

    weight: Tensor
    bias: Tensor | None
    origin: tuple[object, ...]


class Linear(nn.Linear):
    """`nn.Linear` with an activation, faster on the CPU where no gradient is asked for.

    There bias and activation are part of oneDNN's matrix product, which reads the weights from a
    copy in its own layout, in autocast's type: made when the layer is first used, and again when
    the weights have changed.  Everywhere else it is `nn.Linear` and PyTorch's activation.
    """

    _packed: _Packed | None = None

    def forward(self, x: Tensor, activation: Activation = "none") -> Tensor:
        """[..., in_features] → [..., out_features].

        Args:
            x: input.
            activation: applied to the result; "gelu" is the exact one.
        """
        if not _can_pack(x, self.weight):
            self._packed = None
            return activate(super().forward(x), activation)
        dtype = compute_dtype(x)
        packed = self._packed
        origin = _signature(self.weight, self.bias, dtype)
        if packed is None or packed.origin != origin:
            packed = self._packed = _pack(self.weight, self.bias, dtype, origin)
        algorithm = "none" if activation == "gelu" else None
        return torch.ops.mkldnn._linear_pointwise(
            x.to(dtype), packed.weight, packed.bias, activation, [], algorithm
        )

    def train(self, mode: bool = True) -> Linear:
        """As `nn.Module.train`; the packed copy is forgotten."""
        self._packed = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, object]:
        # Copies and pickles pack their own weights.
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}


def activate(x: Tensor, activation: Activation) -> Tensor:
    """The activation by its name; ReLU writes over `x`."""
    if activation == "relu":
        return F.relu(x, inplace=True)
    return F.gelu(x) if activation == "gelu" else x


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type a linear layer computes in: autocast's, or the input's."""
    device = x.device.type
    if (
        x.dtype == torch.float32
        and torch.amp.is_autocast_available(device)
        and torch.is_autocast_enabled(device)
    ):
        return torch.get_autocast_dtype(device)
    return x.dtype


def _can_pack(x: Tensor, weight: Tensor) -> bool:
    if (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or x.device.type != "cpu"
        or x.numel() == 0
        or x.shape[-1] != weight.shape[1]  # PyTorch says what does not fit
        or weight.dtype != torch.float32
        or not torch.backends.mkldnn.is_available()
        or not torch.backends.mkldnn.enabled
    ):
        return False
    dtype = compute_dtype(x)
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


def _signature(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> tuple[object, ...]:
    """What changes with the weights.

    A write through `.data`, and the fused AdamW, change no version number: a few samples of the
    numbers themselves are looked at, too.
    """
    values: list[object] = [dtype]
    for tensor in (weight, bias):
        if tensor is not None:
            flat = tensor.detach().view(-1)
            version = None if tensor.is_inference() else tensor._version
            sample = flat[:: max(1, flat.numel() // 61)].sum().item()
            values += [tensor.data_ptr(), version, sample]
    return tuple(values)


def _pack(
    weight: Tensor, bias: Tensor | None, dtype: torch.dtype, origin: tuple[object, ...]
) -> _Packed:
    return _Packed(
        weight=torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype), _PACKED_FOR_ROWS),
        bias=None if bias is None else bias.detach().to(dtype),
        origin=origin,
    )
