"""Kept rows: what a stage handed on of each job, to be handed on again. In memory, the oldest on disk, then forgotten.

Two readers: a job with the same input takes rows over instead of computing them (`memory.prefix`), and a node
that takes another's place in a ring is sent what that one had. What is read is what was written, or nothing is: a hole
means refusal, never other rows.

Rows lie in pages of `PAGE_ROWS` positions of one job. Beyond `max_bytes` the oldest full pages go to a file per job;
beyond `max_disk_bytes` the file written to first goes. Used by one thread.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from declai.worker.errors import WorkerError

log = logging.getLogger(__name__)

PAGE_ROWS = 32
SUFFIX = ".rows"
MIB = 2**20
Rows = NDArray[np.uint8]


class RowsLost(WorkerError):
    """Rows that were never kept, or are not kept any more, or are not on disk as they were written."""


@dataclass(eq=False)
class _Page:
    """Rows of one job: in memory, or where they lie in its file, with their digest."""

    rows: Rows | None
    num_rows: int = 0
    offset: int = 0
    digest: bytes = b""


class JobRows:
    """The rows of one job, uint8 [positions, row_bytes], from position 0 on. Made by `KeptRows.open`.

    `pages`: those that are kept, by their number in the job; changed by `KeptRows`, too.
    """

    def __init__(self, store: KeptRows, name: str, row_bytes: int) -> None:
        self.name = name
        self.row_bytes = row_bytes
        self.num_rows = 0
        self.pages: dict[int, _Page] = {}
        self._store = store

    def append(self, first: int, rows: Rows) -> None:
        """Keep a copy of the rows of the next positions, which begin at `first`."""
        assert first == self.num_rows, f"rows from {first} on do not continue {self.num_rows}"
        begin = 0
        while begin < len(rows):
            index, at = divmod(self.num_rows, PAGE_ROWS)
            count = min(PAGE_ROWS - at, len(rows) - begin)
            page = self.pages.get(index) if at else self._store.new_page(self, index)
            # Without a page these positions are a hole: its first rows were given up, or there was no room for it.
            if page is not None and page.rows is not None:
                page.rows[at : at + count] = rows[begin : begin + count]
                page.num_rows += count
            self.num_rows += count
            begin += count

    def holds(self, first: int, end: int) -> bool:
        """Whether the rows of these positions are kept. A page on disk may turn out to be broken still."""
        if not 0 <= first < end <= self.num_rows:
            return False
        return all(index in self.pages for index in range(first // PAGE_ROWS, -(-end // PAGE_ROWS)))

    def read(self, first: int, end: int) -> Rows:
        """A copy of the rows of positions [first, end). Raises RowsLost unless all of them are kept."""
        if not self.holds(first, end):
            raise RowsLost(f"not all rows of [{first}, {end}) are kept")
        found = np.empty((end - first, self.row_bytes), np.uint8)
        for index in range(first // PAGE_ROWS, -(-end // PAGE_ROWS)):
            begin = index * PAGE_ROWS
            low, high = max(first, begin), min(end, begin + PAGE_ROWS)
            found[low - first : high - first] = self._page_rows(index)[low - begin : high - begin]
        return found

    def close(self) -> None:
        """Nobody will read these rows again."""
        self._store.forget(self)

    def _page_rows(self, index: int) -> Rows:
        page = self.pages[index]
        if page.rows is not None:
            return page.rows
        data = self._store.read_page(self, page)
        if data is None:
            del self.pages[index]
            raise RowsLost(f"the rows from position {index * PAGE_ROWS} on are not on disk as they were written")
        return np.frombuffer(data, np.uint8).reshape(PAGE_ROWS, self.row_bytes)


class KeptRows:
    """The rows of all jobs of a node, within two bounds.

    Attributes:
        num_bytes: of pages in memory.
        num_disk_bytes: of pages in files.
    """

    def __init__(self, max_bytes: int, folder: Path | None = None, max_disk_bytes: int = 0) -> None:
        """`folder`: where the oldest go, this process's alone; what a crash left there is removed. None: nowhere."""
        self.max_bytes = max_bytes
        self.max_disk_bytes = max_disk_bytes if folder is not None else 0
        self.num_bytes = 0
        self.num_disk_bytes = 0
        self._folder = folder
        self._names = (f"{number}{SUFFIX}" for number in itertools.count())
        # In the order in which they were begun: of each page its job and its number there.
        self._in_memory: OrderedDict[_Page, tuple[JobRows, int]] = OrderedDict()
        self._files: OrderedDict[str, _File] = OrderedDict()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in folder.glob(f"*{SUFFIX}"):
                path.unlink()

    def open(self, row_bytes: int) -> JobRows:
        """A place for the rows of one job, until its `close`."""
        return JobRows(self, next(self._names), row_bytes)

    def close(self) -> None:
        """Remove the files."""
        for name in list(self._files):
            self._remove(name)

    def new_page(self, job: JobRows, index: int) -> _Page | None:
        """The next page of a job; None where there is no room for it."""
        num_bytes = PAGE_ROWS * job.row_bytes
        if num_bytes > self.max_bytes:
            return None
        while self.num_bytes + num_bytes > self.max_bytes:
            self._give_up_oldest()
        try:
            page = job.pages[index] = _Page(np.empty((PAGE_ROWS, job.row_bytes), np.uint8))
        except MemoryError:  # a job goes on without: its rows are needed only when something goes wrong
            return None
        self._in_memory[page] = job, index
        self.num_bytes += num_bytes
        return page

    def read_page(self, job: JobRows, page: _Page) -> bytes | None:
        """A page's bytes from its job's file; None unless they are what was written."""
        try:
            data = self._files[job.name].read(page.offset, PAGE_ROWS * job.row_bytes)
        except OSError as error:
            log.warning("kept rows cannot be read: %s", error)
            return None
        return data if _digest(data) == page.digest else None

    def forget(self, job: JobRows) -> None:
        """Drop all of a job's pages, and its file."""
        for page in job.pages.values():
            if self._in_memory.pop(page, None) is not None:
                self.num_bytes -= PAGE_ROWS * job.row_bytes
        job.pages.clear()
        if job.name in self._files:
            self._remove(job.name)

    def _give_up_oldest(self) -> None:
        """Take the page that was begun first out of memory: onto the disk, or for good. A page that still grows is the
        last resort."""
        full = (page for page in self._in_memory if page.num_rows == PAGE_ROWS)
        page = next(full, None) or next(iter(self._in_memory))
        job, index = self._in_memory.pop(page)
        self.num_bytes -= PAGE_ROWS * job.row_bytes
        if page.num_rows < PAGE_ROWS or not self._write(job, page):
            del job.pages[index]

    def _write(self, job: JobRows, page: _Page) -> bool:
        """Move a page to its job's file. False where there is no room for it."""
        assert page.rows is not None
        num_bytes = page.rows.nbytes
        if self._folder is None or num_bytes > self.max_disk_bytes:
            return False
        while self.num_disk_bytes + num_bytes > self.max_disk_bytes:
            self._remove(next(iter(self._files)))
        try:
            file = self._files.get(job.name)
            if file is None:
                file = self._files[job.name] = _File(self._folder / job.name, job)
            page.offset = file.append(page.rows.data.cast("B"))
        except OSError as error:
            log.warning("kept rows cannot be written: %s", error)
            return False
        page.digest, page.rows = _digest(page.rows.data.cast("B")), None
        self.num_disk_bytes += num_bytes
        return True

    def _remove(self, name: str) -> None:
        file = self._files.pop(name)
        self.num_disk_bytes -= file.num_bytes
        for index in [index for index, page in file.job.pages.items() if page.rows is None]:
            del file.job.pages[index]
        file.remove()


class _File:
    """One job's pages on disk, end to end."""

    def __init__(self, path: Path, job: JobRows) -> None:
        self.job = job
        self.num_bytes = 0
        self._path = path
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def append(self, data: memoryview) -> int:
        """Where the data lies from now on. Raises OSError."""
        offset = self.num_bytes
        if os.pwrite(self._descriptor, data, offset) != data.nbytes:
            raise OSError("the disk took a part only")
        self.num_bytes += data.nbytes
        return offset

    def read(self, offset: int, num_bytes: int) -> bytes:
        return os.pread(self._descriptor, num_bytes, offset)

    def remove(self) -> None:
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
