"""What a process does with memory that it has freed."""

from __future__ import annotations

import os
import sys

KEPT_BYTES = 256 * 2**20  # of freed memory that are not given back at once
LARGEST_BYTES = 32 * 2**20  # of one tensor in that memory; glibc takes no more
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers, malloc.h
# By these users tune glibc themselves.
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next tensor, up to :data:`KEPT_BYTES`.

    glibc gives tensors of some megabytes back to the system when they are freed and takes them anew, page by
    page, for the next one: 440,000 page faults in a forward pass of a ViT-L/14 at 518 px, a fifth of its time
    (``tools/bench/heap.py``). It is for processes that are medzsad's own: the command line and its workers.

    Returns:
        Whether it is so now. Not on other systems than Linux with glibc, and not where the environment tunes
        glibc otherwise.
    """
    if sys.platform != "linux" or any(name in os.environ for name in VARIABLES):
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_BYTES) and mallopt(_TRIM_THRESHOLD, KEPT_BYTES))
