"""The device that a user names."""

from __future__ import annotations

import torch

from util.errors import UserError


def find_device(name: torch.device | str | None = None) -> torch.device:
    """The device of this name, if this machine has it.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps"; None: CUDA where there is one, else the CPU.

    Raises:
        UserError: no device has this name, or this machine does not have it.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: unknown; expected cpu, cuda, cuda:1 or mps.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"--device {name}: PyTorch sees no CUDA device here. Use --device cpu, or check the "
            f"driver (nvidia-smi) and CUDA_VISIBLE_DEVICES."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: PyTorch sees no such device here. Use --device cpu.")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.index is not None and not 0 <= device.index < count:
        raise UserError(f"--device {name}: there are {count} of them here, counted from 0.")
    return device
