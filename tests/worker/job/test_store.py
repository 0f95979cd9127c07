"""The node's store as `declai node claim` uses it: notes that may come twice, and two that use it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Row

from declai.storage import database
from declai.worker.errors import StoreError
from declai.worker.job.store import NodeStore, StoredReceipt
from declai.worker.job.store import store as module
from declai.worker.job.store.records import to_receipt
from tests.support.papers import Papers


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.db"


@pytest.fixture
def store(path: Path) -> Iterator[NodeStore]:
    opened = NodeStore(path)
    yield opened
    opened.close()


def test_notes_of_a_batch_may_come_twice(store: NodeStore) -> None:
    papers = Papers()
    paid, left_out = papers.keep(store, papers.request(1)), papers.keep(store, papers.request(2))
    for _ in range(3):
        store.note_batch(b"r" * 32, [paid.job.job_id], [left_out.job.job_id])
        assert store.batches() == {b"r" * 32}
        assert [(kept.job, kept.left_out) for kept in store.unpaid()] == [(left_out.job, True)]
    for _ in range(2):
        store.forget_batch(b"r" * 32)
        assert store.batches() == set()
        assert not any(kept.left_out for kept in store.unpaid())
        assert len(store.unpaid()) == 2


def test_one_batch_pays_what_another_left_out(store: NodeStore) -> None:
    papers = Papers()
    kept = papers.keep(store, papers.request())
    store.note_batch(b"a" * 32, [], [kept.job.job_id])
    store.note_batch(b"b" * 32, [kept.job.job_id], [])
    assert store.unpaid() == []
    store.forget_batch(b"b" * 32)
    assert [one.left_out for one in store.unpaid()] == [True]


def test_a_closed_receipt_stays_closed_and_kept(store: NodeStore) -> None:
    papers = Papers()
    kept = papers.keep(store, papers.request(), accepted=True)
    for _ in range(2):
        store.close_receipt(kept.job.job_id)
        assert store.unpaid() == []
    assert store.get(kept.job.job_id) == kept
    assert store.earnings().num_receipts == 1


def test_the_first_acceptance_stays(store: NodeStore) -> None:
    papers = Papers()
    kept = papers.keep(store, papers.request(), accepted=True)
    store.accept(kept.job.job_id, b"x" * 65)
    found = store.get(kept.job.job_id)
    assert found is not None
    assert found.acceptance == kept.acceptance


def test_a_node_writes_while_a_claim_reads(path: Path, store: NodeStore) -> None:
    papers, beside = Papers(), NodeStore(path)
    kept = papers.keep(store, papers.request())
    assert beside.unpaid() == [kept]
    beside.note_batch(b"r" * 32, [kept.job.job_id], [])
    papers.keep(store, papers.request(2))
    assert [one.job.request.nonce for one in store.unpaid()] == [2]
    beside.close()


def test_reading_receipts_keeps_no_writer_waiting(
    path: Path, store: NodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim may read ten thousand of them, while the node takes jobs."""
    papers = Papers()
    kept = papers.keep(store, papers.request())
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.1)  # who had to wait fails
    beside = NodeStore(path)

    def read_slowly(row: Row[Any]) -> StoredReceipt:
        assert beside.take(b"j" * 32, 2**31)
        assert store.take(b"k" * 32, 2**31)
        return to_receipt(row)

    monkeypatch.setattr(module, "to_receipt", read_slowly)
    assert store.unpaid() == [kept]
    beside.close()


def test_readers_do_not_wait_for_who_writes(path: Path, store: NodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    papers = Papers()
    kept = papers.keep(store, papers.request())
    monkeypatch.setattr(database, "LOCK_TIMEOUT_S", 0.1)
    beside = NodeStore(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert beside.unpaid() == beside.unacknowledged() == [kept]
        assert beside.get(kept.job.job_id) == kept
        assert beside.earnings().num_receipts == 1
        assert beside.batches() == set()
    beside.close()


def test_what_is_no_store_is_named(path: Path) -> None:
    path.write_bytes(b"receipts, but not in SQLite's words" * 100)
    with pytest.raises(StoreError, match=f"cannot open {path}: file is not a database"):
        NodeStore(path)
    assert path.read_bytes().startswith(b"receipts")


def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot open .*/file/node.db: .*give this user the right"):
        NodeStore(tmp_path / "file" / "node.db")
