"""What a process does with memory that it has freed."""

from __future__ import annotations

import os
import sys

KEPT_BYTES = 256 * 2**20
LARGEST_BYTES = 32 * 2**20  # glibc takes no more
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers, malloc.h
# By these users tune glibc themselves.
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next tensor.

    It gives tensors of some megabytes back to the system when they are freed and takes them anew, page by
    page, for the next one; ``tools/bench/heap.py`` counts the pages and what they cost. With this, tensors up
    to :data:`LARGEST_BYTES` come from the heap, whose free end is given back above :data:`KEPT_BYTES`; free
    parts between others stay. For processes that are medzsad's own: the command line and its workers.

    Returns:
        Whether glibc was told so. Not on other systems than Linux, not with another C library, and not where
        the environment tunes glibc otherwise. An allocator that is loaded before glibc's is not touched.
    """
    if sys.platform != "linux" or any(name in os.environ for name in VARIABLES):
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_BYTES) and mallopt(_TRIM_THRESHOLD, KEPT_BYTES))
