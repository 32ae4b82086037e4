"""From the CPU to the device without waiting."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on another device.

    `torch.tensor(numbers, device="cuda")` and `.to("cuda")` make the host wait until the GPU has
    got there; from page-locked memory the copy takes its place in the GPU's queue instead.
    """
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
