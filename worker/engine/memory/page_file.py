"""One file of pages of one size, for all jobs: it takes one descriptor however many jobs there are."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class PageFile:
    """Pages at offsets. The place of a page that was freed is written again before the file grows."""

    def __init__(self, path: Path) -> None:
        """A new file, this process's alone. Raises OSError."""
        self._path = path
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._end = 0
        self._num_used = 0
        self._free: list[int] = []

    def write(self, data: memoryview, page_bytes: int) -> int:
        """Where the data lies from now on. `page_bytes`, the same for every page, is the most it may be.

        Raises OSError.
        """
        assert data.nbytes <= page_bytes
        offset = self._free[-1] if self._free else self._end
        if os.pwrite(self._descriptor, data, offset) != data.nbytes:
            raise OSError("the disk took a part only")
        if self._free:
            self._free.pop()
        else:
            self._end += page_bytes
        self._num_used += 1
        return offset

    def read(self, offset: int, num_bytes: int) -> bytes:
        """What lies there, less where the file ends. Raises OSError."""
        return os.pread(self._descriptor, num_bytes, offset)

    def free(self, offset: int) -> None:
        """Nobody reads the page there again. A file without pages takes no room."""
        self._free.append(offset)
        self._num_used -= 1
        if not self._num_used:
            self._free, self._end = [], 0
            with contextlib.suppress(OSError):  # what lies there is written over
                os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Remove the file."""
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)
