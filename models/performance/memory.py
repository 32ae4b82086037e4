"""Memory of large tensors on the CPU."""

from __future__ import annotations

import torch

from models.uniphd.ops import extension


def keep_freed_memory() -> bool:
    """Let large tensors on the CPU take the memory of earlier ones, from now on in this process.

    The system zeroes and maps new pages for every tensor of some megabytes, and takes them back
    when it is freed: a third of the time of a training step of the full model in float32
    (docs/performance.md).  Freed blocks then wait for a tensor of their size, as CUDA's do; what
    waits is bounded by a quarter of the most that was in use at once.

    Returns:
        Whether that is so; not where the compiled library is missing and can't be built.
    """
    try:
        extension.load("cpu")
    except (RuntimeError, OSError, ImportError):
        return False  # deformable attention will say why it is slow
    torch.ops.uniphd.keep_freed_memory()
    return True
