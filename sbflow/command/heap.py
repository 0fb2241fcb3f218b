"""What a process does with memory that it has freed."""

import ctypes
import os

__all__ = ["keep_freed_memory"]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt, from <malloc.h>


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for the next tensor of the size, where it would give them back to the system.

    A page that comes back from the system is cleared at its first touch, which for tensors of megabytes costs as much
    as the arithmetic on them. Nothing is changed where the environment already says what is wanted
    (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``), nor by a C library without ``mallopt``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return
    mallopt(TRIM_THRESHOLD, 2**31 - 1)
    # older versions refuse more than 32 MiB
    if not mallopt(MMAP_THRESHOLD, 2**30):
        mallopt(MMAP_THRESHOLD, 2**25)
