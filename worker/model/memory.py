"""Memory that was freed, given back to the system."""

import ctypes
from functools import cache
from typing import Any


def give_back_memory() -> None:
    """Return what was freed to the system, where the C library is glibc.

    glibc keeps freed blocks of up to 32 MiB, and after weights went from one form to another those were as much as the
    weights themselves.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
