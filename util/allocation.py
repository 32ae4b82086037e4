"""Memory that a process has once touched stays with it."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_TOP_PAD_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for its next allocations.

    By default glibc gives every large tensor fresh pages from the system and hands them back when
    the tensor is freed; zeroing and mapping them again took a third of a training step of the full
    model on the CPU (docs/performance.md).  Afterwards large blocks come from the heap, which
    never shrinks: the process stays as large as it once was.

    Returns:
        Whether the C library could be told; only glibc (Linux) can.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
