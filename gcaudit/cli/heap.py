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
    # an older glibc takes no threshold above 32 MiB; setting the others without it would freeze it at 128 KiB, which is worse than nothing
    if mallopt(_MMAP_THRESHOLD, 2**30) != 1 and mallopt(_MMAP_THRESHOLD, 2**25) != 1:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1) == 1 and mallopt(_TOP_PAD, 2**26) == 1)
