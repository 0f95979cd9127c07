"""Kept rows: what a stage handed on of each job, to be handed on again. In memory, the oldest on disk, then forgotten.

Two readers: a job with the same input takes rows over instead of computing them (`memory.prefix`), and a node
that takes another's place in a ring is sent what that one had. What is read is what was written, or nothing is: a hole
means refusal, never other rows.

Rows lie in pages of `PAGE_ROWS` positions of one job. Beyond `max_bytes` the oldest pages go to a file of all jobs;
beyond `max_disk_bytes` the job goes whose pages came there first. Pages of jobs that ended go before those of jobs that
run, and a page that still grows is the last resort. Used by one thread.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from declai.worker.engine.memory.page_file import PageFile
from declai.worker.errors import WorkerError

log = logging.getLogger(__name__)

PAGE_ROWS = 32
SUFFIX = ".rows"
Rows = NDArray[np.uint8]


class RowsLost(WorkerError):
    """Rows that were never kept, or are not kept any more, or are not on disk as they were written."""


@dataclass(eq=False)
class _Page:
    """Rows of one job: in memory, or where they lie in the file, with their digest."""

    job: JobRows
    index: int
    rows: Rows | None
    num_rows: int = 0
    offset: int = 0
    digest: bytes = b""


class JobRows:
    """The rows of one job, uint8 [positions, row_bytes], from position 0 on. Made by `KeptRows.open`.

    Attributes:
        has_ended: no rows come any more; these are kept while nobody needs their room.
        pages: those that are kept, by their number in the job; changed by `KeptRows`, too.
    """

    def __init__(self, store: KeptRows, row_bytes: int) -> None:
        self.row_bytes = row_bytes
        self.num_rows = 0
        self.has_ended = False
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
                if page.num_rows == PAGE_ROWS:
                    self._store.filled(page)
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

    def end(self) -> None:
        """No rows come any more, but somebody may read these."""
        self.has_ended = True
        self._store.ended(self)

    def close(self) -> None:
        """Nobody will read these rows again."""
        self._store.forget(self)

    def _page_rows(self, index: int) -> Rows:
        page = self.pages[index]
        if page.rows is not None:
            return page.rows
        data = self._store.read_page(page)
        if data is None:
            del self.pages[index]
            raise RowsLost(f"the rows from position {index * PAGE_ROWS} on are not on disk as they were written")
        return np.frombuffer(data, np.uint8).reshape(page.num_rows, self.row_bytes)


class KeptRows:
    """The rows of all jobs of a node, all of one width, within two bounds.

    Attributes:
        num_bytes: of pages in memory.
        num_disk_bytes: of pages in the file.
    """

    def __init__(self, max_bytes: int, folder: Path | None = None, max_disk_bytes: int = 0) -> None:
        """`folder`: where the oldest go, this process's alone; what a crash left there is removed. None: nowhere.

        Raises OSError.
        """
        self.max_bytes = max_bytes
        self.max_disk_bytes = max_disk_bytes
        self.num_bytes = 0
        self.num_disk_bytes = 0
        self._row_bytes = 0
        self._in_memory = _Order()
        # In the order in which their first page came there: jobs that ended, and jobs that run, with their pages.
        self._ended_on_disk: OrderedDict[JobRows, list[_Page]] = OrderedDict()
        self._running_on_disk: OrderedDict[JobRows, list[_Page]] = OrderedDict()
        self._file = None if folder is None else _open_file(folder)

    def open(self, row_bytes: int) -> JobRows:
        """A place for the rows of one job, until its `close`."""
        self._row_bytes = self._row_bytes or row_bytes
        assert row_bytes == self._row_bytes, "the rows of a node have one width"
        return JobRows(self, row_bytes)

    def close(self) -> None:
        """Remove the file."""
        for job in [*self._ended_on_disk, *self._running_on_disk]:
            self._remove_from_disk(job)
        if self._file is not None:
            self._file.close()
            self._file = None

    def new_page(self, job: JobRows, index: int) -> _Page | None:
        """The next page of a job; None where there is no room for it."""
        if self._page_bytes > self.max_bytes:
            return None
        while self.num_bytes + self._page_bytes > self.max_bytes:
            self._give_up_oldest()
        try:
            page = job.pages[index] = _Page(job, index, np.empty((PAGE_ROWS, job.row_bytes), np.uint8))
        except MemoryError:  # a job goes on without: its rows are needed only when something goes wrong
            return None
        self._in_memory.put(page)
        self.num_bytes += self._page_bytes
        return page

    def filled(self, page: _Page) -> None:
        """The page grows no more."""
        self._in_memory.put(page)

    def ended(self, job: JobRows) -> None:
        """None of the job's pages grows any more, and they go before those of others."""
        for page in job.pages.values():
            if page.rows is not None:
                self._in_memory.put(page)
        if job in self._running_on_disk:
            self._ended_on_disk[job] = self._running_on_disk.pop(job)

    def read_page(self, page: _Page) -> bytes | None:
        """A page's bytes from the file; None unless they are what was written."""
        assert self._file is not None
        try:
            data = self._file.read(page.offset, page.num_rows * self._row_bytes)
        except OSError as error:
            log.warning("kept rows cannot be read: %s", error)
            return None
        return data if _digest(data) == page.digest else None

    def forget(self, job: JobRows) -> None:
        """Drop all of a job's pages."""
        for page in job.pages.values():
            if self._in_memory.discard(page):
                self.num_bytes -= self._page_bytes
        self._remove_from_disk(job)
        job.pages.clear()

    @property
    def _page_bytes(self) -> int:
        return PAGE_ROWS * self._row_bytes

    def _give_up_oldest(self) -> None:
        """Take a page out of memory: onto the disk, or for good. A page that still grows is not written."""
        page = self._in_memory.pop()
        self.num_bytes -= self._page_bytes
        if _rank(page) == GROWING or not self._write(page):
            del page.job.pages[page.index]

    def _write(self, page: _Page) -> bool:
        """Move a page to the file. False where there is no room for it."""
        assert page.rows is not None
        if self._file is None or not self._make_room_on_disk(page.job):
            return False
        data = page.rows[: page.num_rows].data.cast("B")  # the rest was never written: it is anybody's memory
        try:
            page.offset = self._file.write(data, self._page_bytes)
        except OSError as error:
            log.warning("kept rows cannot be written: %s", error)
            return False
        page.digest, page.rows = _digest(data), None
        on_disk = self._ended_on_disk if page.job.has_ended else self._running_on_disk
        on_disk.setdefault(page.job, []).append(page)
        self.num_disk_bytes += self._page_bytes
        return True

    def _make_room_on_disk(self, job: JobRows) -> bool:
        """Whether there is room for a page of this job. A job that ended takes none from one that runs."""
        if self._page_bytes > self.max_disk_bytes:
            return False
        while self.num_disk_bytes + self._page_bytes > self.max_disk_bytes:
            if not self._ended_on_disk and job.has_ended:
                return False
            self._remove_from_disk(next(iter(self._ended_on_disk or self._running_on_disk)))
        return True

    def _remove_from_disk(self, job: JobRows) -> None:
        for page in self._ended_on_disk.pop(job, []) + self._running_on_disk.pop(job, []):
            assert self._file is not None
            self._file.free(page.offset)
            self.num_disk_bytes -= self._page_bytes
            job.pages.pop(page.index, None)  # one that could not be read is not there any more


ENDED, FULL, GROWING = range(3)


def _rank(page: _Page) -> int:
    if page.job.has_ended:
        return ENDED
    return FULL if page.num_rows == PAGE_ROWS else GROWING


class _Order:
    """Pages in the order in which they are given up: by rank, then those first that came first to it."""

    def __init__(self) -> None:
        # Not a plain dict: finding the first of one is slow after many were taken from its front.
        self._ranks: tuple[OrderedDict[_Page, None], ...] = (OrderedDict(), OrderedDict(), OrderedDict())

    def put(self, page: _Page) -> None:
        """Take a page in, or note that its rank changed."""
        self.discard(page)
        self._ranks[_rank(page)][page] = None

    def discard(self, page: _Page) -> bool:
        """Whether the page was there."""
        for pages in self._ranks:
            if page in pages:
                del pages[page]
                return True
        return False

    def pop(self) -> _Page:
        """The first one. Raises StopIteration when there is none."""
        pages = next(pages for pages in self._ranks if pages)
        return pages.popitem(last=False)[0]


def _open_file(folder: Path) -> PageFile:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in folder.glob(f"*{SUFFIX}"):
        path.unlink()
    return PageFile(folder / f"pages{SUFFIX}")


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
