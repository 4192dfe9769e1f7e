"""The C library's heap, told to keep what it is given back.

glibc hands every freed block of more than a few megabytes back to the system, and the next one comes as fresh pages that the kernel must clear.
A network's maps are such blocks, freed and asked for again with every layer: on CPUs that costs up to half of the time of a pass.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory for the next map instead of returning it; for programs, not for libraries.

    Returns:
        Whether there is a glibc that took it.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wishes = ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    taken = [mallopt(name, value) == 1 for name, value in wishes]
    return all(taken)
