"""What glibc's malloc does with the buffers of megabytes that come again with every picture.

A body, its base64, its file, its pixels and its patches are each a buffer of megabytes. glibc gives such a buffer back
to the kernel when it is freed, and each of its pages costs a page fault when the next picture comes: some thousand a
request, most of what reading a picture more carefully costs.
"""

from __future__ import annotations

import ctypes
import os

# Numbers of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_LARGEST_KEPT = 32 << 20  # bytes of one buffer, the most that glibc takes: patches of a picture of 1.2 megapixels
_MOST_KEPT = 128 << 20  # bytes that are free, for each thread that allocates


def keep_large_buffers() -> None:
    """Let this process use freed buffers of up to 32 MiB again, rather than give them back to the kernel.

    Where the user has set malloc (`MALLOC_...`, `GLIBC_TUNABLES`), or the C library is another one, nothing changes.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
