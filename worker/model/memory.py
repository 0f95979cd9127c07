"""What becomes of memory that was freed, where the C library is glibc."""

import contextlib
import ctypes

# From glibc's malloc.h. It takes no larger threshold for blocks of their own than this one.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT_BLOCK = 32 * 2**20
_MOST_KEPT_BYTES = 256 * 2**20


def give_back_memory() -> None:
    """Return what was freed to the system.

    glibc keeps freed blocks of up to 32 MiB, and after weights went from one form to another those were as much as the
    weights themselves.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> None:
    """Let this process keep what its steps free, up to some hundred MiB: the next step asks for the same again.

    glibc gives every larger block back at once. The system then clears its pages anew, a step's activations at a time:
    a seventh of the time of a prompt.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT_BYTES)
