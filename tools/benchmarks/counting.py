"""The floor of a step: what the machine needs for its products alone.

Counted are the products: matrix products, convolutions, attention and deformable attention,
forward and backward.  Each takes at least its arithmetic at the rate of the machine's best matrix
product in that type, and at least its inputs and its output once through memory, whichever is
longer; the floor is the sum.  Everything between the products (norms, activations, sums, copies)
counts as nothing, as if it were fused into them.  A step may name memory traffic of its own besides
(`extra_bytes`: an optimizer that reads and writes every weight).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

# A sample is read at four pixels, each weighted and added: 8 operations a channel.  The backward
# pass adds to four pixels (8), and needs the derivative to weight and position (16).
_SAMPLE_FORWARD, _SAMPLE_BACKWARD = 8, 24


def _deformable(operations: int) -> Callable[..., int]:
    def count(tensors: list[Tensor]) -> int:
        value = next(tensor for tensor in tensors if tensor.dim() == 4)
        locations = next(tensor for tensor in tensors if tensor.dim() == 6)
        return operations * value.shape[-1] * locations.numel() // 2

    return count


def _linear(tensors: list[Tensor]) -> int:
    inputs, weight = tensors[:2]
    return 2 * inputs.numel() * weight.shape[0]


# Products that PyTorch's own registry does not know, by name: tensors among the arguments to FLOPs.
OTHER_PRODUCTS: dict[str, Callable[[list[Tensor]], int]] = {
    "uniphd::ms_deform_attn": _deformable(_SAMPLE_FORWARD),
    "uniphd::ms_deform_attn_backward": _deformable(_SAMPLE_BACKWARD),
    "mkldnn::_linear_pointwise": _linear,
    "mkldnn::_linear_pointwise.binary": _linear,
}


class ProductCounter(TorchDispatchMode):
    """Counts the products of a block of code.

    Args:
        rates: of `benchmarks.machine.measure`.

    Attributes:
        flops: by type.
        bytes: of the products' inputs and outputs.
        seconds: the sum of their floors.
    """

    def __init__(self, rates: Mapping[str, Any]) -> None:
        super().__init__()
        self.rates = rates
        self.flops: dict[str, int] = {}
        self.bytes = 0
        self.seconds = 0.0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        name = func.name()
        if packet not in flop_registry and name not in OTHER_PRODUCTS:
            with self:  # a composite operation: count its parts
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=output)
        elif name in OTHER_PRODUCTS:
            flops = OTHER_PRODUCTS[name](inputs)
        else:
            return output
        outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        self._add(_type_name(inputs), flops, sum(map(_size, [*inputs, *outputs])))
        return output

    def _add(self, type_name: str, flops: int, size: int) -> None:
        self.flops[type_name] = self.flops.get(type_name, 0) + flops
        self.bytes += size
        rate = self.rates["flops"].get(type_name) or self.rates["flops"]["float32"]
        self.seconds += max(flops / rate, size / self.rates["bytes"])


def _type_name(tensors: list[Tensor]) -> str:
    floating = next(tensor for tensor in tensors if tensor.is_floating_point())
    is_short = torch.get_float32_matmul_precision() != "highest"
    if floating.is_cuda and floating.dtype == torch.float32 and is_short:
        return "tf32"
    return str(floating.dtype).removeprefix("torch.")


def _size(tensor: Tensor) -> int:
    """Bytes; what is expanded counts once, and packed weights as their numbers."""
    whole = tensor.numel() * tensor.element_size()
    if tensor.layout != torch.strided:
        return whole
    return min(whole, tensor.untyped_storage().nbytes())


def floor(function: Callable[[], int], rates: Mapping[str, Any]) -> dict[str, Any]:
    """The floor of one round of a function.

    Args:
        function: of a module's `prepare`; compiled parts run uncompiled while they are counted.
        rates: of `benchmarks.machine.measure`.

    Returns:
        `flops` by type, `bytes`, `seconds` per unit, and `units`.
    """
    counter = ProductCounter(rates)
    with counter, torch.compiler.set_stance("force_eager"):
        units = max(1, function())
    extra = getattr(function, "extra_bytes", 0)
    return {
        "flops": counter.flops,
        "bytes": counter.bytes + extra,
        "seconds": (counter.seconds + extra / rates["bytes"]) / units,
        "units": units,
    }
