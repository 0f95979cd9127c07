"""Kept rows: what is read is what was written or nothing, the bounds hold, and nothing is left on disk."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from declai.worker.engine.memory.kept_rows import PAGE_ROWS, JobRows, KeptRows, RowsLost

ROW_BYTES = 8
PAGE_BYTES = PAGE_ROWS * ROW_BYTES


def rows_of(job: int, first: int, end: int) -> NDArray[np.uint8]:
    """Rows that name their job and position."""
    values = [job.to_bytes(4, "little") + position.to_bytes(4, "little") for position in range(first, end)]
    return np.frombuffer(b"".join(values), np.uint8).reshape(end - first, ROW_BYTES)


def grow(rows: JobRows, job: int, num_rows: int) -> None:
    rows.append(rows.num_rows, rows_of(job, rows.num_rows, rows.num_rows + num_rows))


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@contextlib.contextmanager
def limited(kind: int, limit: int) -> Iterator[None]:
    """This process may use no more of this than the limit says."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


@pytest.fixture
def spilling(tmp_path: Path) -> Iterator[KeptRows]:
    """Room for two pages in memory, and for six on disk."""
    store = KeptRows(2 * PAGE_BYTES, tmp_path / "rows", 6 * PAGE_BYTES)
    yield store
    store.close()


MOVES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 70), st.sampled_from(["grow", "end", "close"])), max_size=40
)


@settings(deadline=None)
@given(MOVES, st.integers(1, 6), st.integers(0, 6))
def test_reads_are_true_and_bounds_hold_whatever_comes(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, int, str]], num_pages: int, num_disk_pages: int
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    store = KeptRows(num_pages * PAGE_BYTES, folder, num_disk_pages * PAGE_BYTES)
    jobs = [store.open(ROW_BYTES) for _ in range(4)]
    for number, num_rows, move in moves:
        if move == "close":
            jobs[number].close()
            jobs[number] = store.open(ROW_BYTES)
        elif move == "end":
            jobs[number].end()
        elif num_rows and not jobs[number].has_ended:
            grow(jobs[number], number, num_rows)
        assert store.num_bytes <= num_pages * PAGE_BYTES
        assert store.num_disk_bytes <= num_disk_pages * PAGE_BYTES
        assert sum(path.stat().st_size for path in files(folder)) <= num_disk_pages * PAGE_BYTES
        for job, rows in enumerate(jobs):
            check_reads(rows, job)
    for rows in jobs:
        rows.close()
    assert (store.num_bytes, store.num_disk_bytes) == (0, 0)
    assert [path.stat().st_size for path in files(folder)] == [0]
    store.close()
    assert files(folder) == []


def check_reads(rows: JobRows, job: int) -> None:
    """Position by position and all at once: true rows, or a refusal where `holds` says so."""
    kept = [position for position in range(rows.num_rows) if rows.holds(position, position + 1)]
    for position in kept:
        assert np.array_equal(rows.read(position, position + 1), rows_of(job, position, position + 1))
    if len(kept) == rows.num_rows > 0:
        assert np.array_equal(rows.read(0, rows.num_rows), rows_of(job, 0, rows.num_rows))
    elif rows.num_rows:
        with pytest.raises(RowsLost):
            rows.read(0, rows.num_rows)


def test_the_oldest_go_to_disk_and_come_back_equal(spilling: KeptRows, tmp_path: Path) -> None:
    rows = spilling.open(ROW_BYTES)
    grow(rows, 1, 5 * PAGE_ROWS)
    (path,) = files(tmp_path / "rows")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "rows").stat().st_mode & 0o077 == 0
    assert (spilling.num_bytes, spilling.num_disk_bytes) == (2 * PAGE_BYTES, 3 * PAGE_BYTES)
    assert np.array_equal(rows.read(0, 5 * PAGE_ROWS), rows_of(1, 0, 5 * PAGE_ROWS))
    assert np.array_equal(rows.read(31, 98), rows_of(1, 31, 98))


def test_many_more_jobs_than_descriptors_are_kept_and_leave_descriptors_to_others(tmp_path: Path) -> None:
    num_jobs, num_open = 300, len(os.listdir("/proc/self/fd"))
    store = KeptRows(PAGE_BYTES, tmp_path, num_jobs * PAGE_BYTES)
    jobs = [store.open(ROW_BYTES) for _ in range(num_jobs)]
    with limited(resource.RLIMIT_NOFILE, num_open + 32):
        for job, rows in enumerate(jobs):
            grow(rows, job, PAGE_ROWS)
            rows.end()
        (tmp_path / "others").write_text("can open a file")
        for job, rows in enumerate(jobs):
            assert np.array_equal(rows.read(0, PAGE_ROWS), rows_of(job, 0, PAGE_ROWS))
    store.close()


def test_jobs_that_ended_give_up_their_pages_before_one_that_runs(tmp_path: Path) -> None:
    """In memory and on disk, also their partial pages, and however long ago the other's were written."""
    store = KeptRows(4 * PAGE_BYTES, tmp_path, 4 * PAGE_BYTES)
    running = store.open(ROW_BYTES)
    grow(running, 0, 3 * PAGE_ROWS)
    for job in range(1, 20):
        short = store.open(ROW_BYTES)
        grow(short, job, 40 if job % 2 else 3)
        short.end()
        check_reads(short, job)
    grow(running, 0, 4 * PAGE_ROWS)
    assert np.array_equal(running.read(0, 7 * PAGE_ROWS), rows_of(0, 0, 7 * PAGE_ROWS))
    assert store.num_disk_bytes <= 4 * PAGE_BYTES
    store.close()


def test_a_job_that_ended_takes_no_room_on_disk_from_one_that_runs(tmp_path: Path) -> None:
    store = KeptRows(PAGE_BYTES, tmp_path, PAGE_BYTES)
    running, short = store.open(ROW_BYTES), store.open(ROW_BYTES)
    grow(running, 0, PAGE_ROWS)
    grow(short, 1, PAGE_ROWS)  # the other's page goes to the disk
    short.end()
    store.new_page(store.open(ROW_BYTES), 0)
    assert running.holds(0, PAGE_ROWS)
    assert not short.holds(0, 1)
    store.close()


def test_beyond_both_bounds_the_job_that_went_to_disk_first_has_a_hole(spilling: KeptRows) -> None:
    old, new = spilling.open(ROW_BYTES), spilling.open(ROW_BYTES)
    grow(old, 1, 4 * PAGE_ROWS)
    grow(new, 2, 7 * PAGE_ROWS)
    assert new.holds(0, 7 * PAGE_ROWS)
    for first, end in [(0, 1), (0, 4 * PAGE_ROWS), (PAGE_ROWS - 1, PAGE_ROWS + 1)]:
        with pytest.raises(RowsLost):
            old.read(first, end)


@pytest.mark.parametrize("harm", ["changed", "cut", "gone"])
def test_a_page_that_is_not_what_was_written_is_a_hole(spilling: KeptRows, tmp_path: Path, harm: str) -> None:
    rows = spilling.open(ROW_BYTES)
    grow(rows, 1, 4 * PAGE_ROWS)
    (path,) = files(tmp_path / "rows")
    if harm == "changed":
        with path.open("r+b") as file:
            file.seek(PAGE_BYTES + 5)
            file.write(b"\xff")
    else:
        os.truncate(path, PAGE_BYTES if harm == "cut" else 0)
    with pytest.raises(RowsLost):
        rows.read(0, 4 * PAGE_ROWS)
    assert not rows.holds(0, 4 * PAGE_ROWS)
    assert np.array_equal(rows.read(2 * PAGE_ROWS, 4 * PAGE_ROWS), rows_of(1, 2 * PAGE_ROWS, 4 * PAGE_ROWS))
    grow(rows, 1, 3)
    rows.close()
    assert path.stat().st_size == 0
    spilling.close()
    assert files(tmp_path / "rows") == []


def test_what_a_crash_left_is_removed_at_the_start_and_nothing_else(tmp_path: Path) -> None:
    store = KeptRows(PAGE_BYTES, tmp_path, 4 * PAGE_BYTES)
    grow(store.open(ROW_BYTES), 1, 3 * PAGE_ROWS)
    (tmp_path / "notes.txt").write_text("mine")
    assert len(files(tmp_path)) == 2
    (tmp_path / "7.rows").write_text("rows of an earlier release")
    again = KeptRows(PAGE_BYTES, tmp_path, 4 * PAGE_BYTES)
    assert sorted(path.stat().st_size for path in files(tmp_path)) == [0, len("mine")]
    grow(again.open(ROW_BYTES), 1, 3 * PAGE_ROWS)
    again.close()
    assert files(tmp_path) == [tmp_path / "notes.txt"]


def test_a_disk_that_takes_nothing_makes_holes_and_harms_nobody(tmp_path: Path) -> None:
    store = KeptRows(PAGE_BYTES, tmp_path / "rows", 4 * PAGE_BYTES)
    rows = store.open(ROW_BYTES)
    with limited(resource.RLIMIT_FSIZE, 0):
        grow(rows, 1, 3 * PAGE_ROWS)
    assert not rows.holds(0, 1)
    assert np.array_equal(rows.read(2 * PAGE_ROWS, 3 * PAGE_ROWS), rows_of(1, 2 * PAGE_ROWS, 3 * PAGE_ROWS))


def test_rows_larger_than_all_there_is_are_not_kept() -> None:
    store = KeptRows(100)
    rows = store.open(2**20)
    for position in range(PAGE_ROWS + 1):
        rows.append(position, np.zeros((1, 2**20), np.uint8))
    assert (rows.num_rows, store.num_bytes) == (PAGE_ROWS + 1, 0)
    assert not rows.holds(0, 1)


@pytest.mark.parametrize(("first", "end"), [(-1, 3), (0, 0), (3, 3), (4, 3), (0, 41), (40, 41), (2**62, 2**62 + 1)])
def test_positions_that_never_were_are_refused(spilling: KeptRows, first: int, end: int) -> None:
    rows = spilling.open(ROW_BYTES)
    grow(rows, 1, 40)
    with pytest.raises(RowsLost):
        rows.read(first, end)


def test_a_reader_has_a_copy_and_the_writers_rows_may_change(spilling: KeptRows) -> None:
    rows, mine = spilling.open(ROW_BYTES), rows_of(1, 0, 3).copy()
    rows.append(0, mine)
    mine[:] = 0
    rows.read(0, 3)[:] = 7
    assert np.array_equal(rows.read(0, 3), rows_of(1, 0, 3))
