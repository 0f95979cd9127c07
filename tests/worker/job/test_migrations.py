"""Node stores of older releases open with every receipt that is in them; kills on the way lose nothing."""

from __future__ import annotations

import json
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from declai.api.store.store import Store
from declai.chain.fields import to_hex
from declai.chain.messages import digest, recover
from declai.protocol.receipts import SignedReceipt, acceptance_of
from declai.storage import migrations as steps
from declai.worker.errors import StoreError, StoreTooOld
from declai.worker.job.store import NodeStore, StoredReceipt, migrations, schema
from tests.support.old_databases import Rows, copy_of, is_sound, killed_openings, narrowed, rows_of, without_versions

# As the first nodes wrote it, before gateways accepted receipts and outcomes of batches were noted.
FIRST_SCHEMA = """
CREATE TABLE taken (job BLOB PRIMARY KEY, deadline INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE receipts (
    job BLOB PRIMARY KEY,
    task TEXT NOT NULL,
    receipt TEXT NOT NULL,
    cost TEXT NOT NULL,
    stored_at INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX unacknowledged ON receipts (stored_at) WHERE NOT acknowledged;
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return copy_of("v1/node.db", tmp_path)


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def open_url(url: str) -> None:
    NodeStore(Path(url.removeprefix("sqlite:///"))).close()


def check_receipt(kept: StoredReceipt, row: dict[str, Any], rows: Rows) -> None:
    """Every field against what version 1 wrote."""
    task, job = json.loads(row["task"]), kept.job
    assert job.job_id == row["job"]
    assert job.job_id == sha256(job.request_digest + job.attempt.to_bytes(4, "big")).digest()
    assert job.domain.model_dump() == {"chain_id": task["chain_id"], "ledger": task["ledger"]}
    assert json.loads(job.request.model_dump_json()) == task["request"]
    assert to_hex(job.request_signature) == task["request_signature"]
    assert json.loads(job.assignment.model_dump_json()) == task["assignment"]
    assert to_hex(job.assignment_signature) == task["assignment_signature"]
    assert job.gateway.model_dump(mode="json") == task["gateway"]
    for name in ("num_stages", "attempt", "model_name", "manifest_cid"):
        assert getattr(job, name) == task[name]
    assert kept.receipt == SignedReceipt.model_validate_json(row["receipt"])
    assert recover(kept.receipt.receipt, job.domain, kept.receipt.signature) == kept.receipt.receipt.node
    assert kept.receipt.receipt.assignment == job.assignment_digest == digest(job.assignment, job.domain)
    assert kept.stored_at == row["stored_at"]
    acceptances = {found["job"]: found["signature"] for found in rows["acceptances"]}
    assert kept.acceptance == acceptances.get(job.job_id)
    if kept.acceptance is not None:
        signer = recover(acceptance_of(kept.receipt.receipt, job.domain), job.domain, kept.acceptance)
        assert signer == recover(job.assignment, job.domain, job.assignment_signature)
    left_out = {found["job"] for found in rows["outcomes"] if not found["paid"]}
    assert kept.left_out == (job.job_id in left_out)


def check_store(path: Path, before: Rows) -> None:
    """Everything that version 1 had is there."""
    store = NodeStore(path)
    unchanged = {name: rows for name, rows in before.items() if name != "receipts"}
    assert narrowed(rows_of(url_of(path)), unchanged) == unchanged
    for row in before["receipts"]:
        kept = store.get(row["job"])
        assert kept is not None
        check_receipt(kept, row, before)
    waiting = {row["job"] for row in before["receipts"] if not row["acknowledged"]}
    assert {kept.job.job_id for kept in store.unacknowledged()} == waiting
    settled = {row["job"] for row in before["outcomes"] if row["paid"]} | {row["job"] for row in before["closed"]}
    assert {kept.job.job_id for kept in store.unpaid()} == {row["job"] for row in before["receipts"]} - settled
    assert store.batches() == {row["root"] for row in before["batches"]}
    earned = store.earnings()
    assert (earned.num_receipts, earned.num_unacknowledged) == (len(before["receipts"]), len(waiting))
    assert earned.total_cost == sum(int(row["cost"]) for row in before["receipts"])
    assert not any(store.take(row["job"], row["deadline"]) for row in before["taken"])
    store.close()
    assert is_sound(path)


def test_a_store_of_the_first_release_opens_with_all_that_is_in_it(path: Path) -> None:
    before = rows_of(url_of(path))
    assert len(before["receipts"]) == 8
    check_store(path, before)
    assert "prompt_token_ids" not in repr(rows_of(url_of(path))), "a payer's prompt is not the node's to keep"


def test_a_store_of_the_first_nodes_opens(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TABLE acceptances; DROP TABLE outcomes; DROP TABLE batches; DROP TABLE closed;")
        db.executescript("ALTER TABLE taken RENAME TO t; ALTER TABLE receipts RENAME TO r; DROP INDEX unacknowledged;")
        db.executescript(FIRST_SCHEMA + "INSERT INTO taken SELECT * FROM t; INSERT INTO receipts SELECT * FROM r;")
        db.executescript("DROP TABLE t; DROP TABLE r;")
    before = rows_of(url_of(path)) | {"acceptances": [], "outcomes": [], "batches": [], "closed": []}
    check_store(path, before)
    check_store(path, before)


def test_a_kill_at_every_statement_of_a_migration_loses_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    def fresh_copy() -> str:
        return url_of(copy_of("v1/node.db", tmp_path_factory.mktemp("v1")))

    before = rows_of(fresh_copy())
    num_killed = 0
    for url in killed_openings(open_url, fresh_copy):
        check_store(Path(url.removeprefix("sqlite:///")), before)
        num_killed += 1
    assert num_killed > 25


def test_a_row_that_cannot_be_read_is_named_and_nothing_is_changed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        (job,) = db.execute("SELECT job FROM receipts").fetchone()
        db.execute("UPDATE receipts SET task = 'torn' WHERE job = ?", (job,))
        db.commit()
    before = rows_of(url_of(path))
    with pytest.raises(StoreError, match=f"table receipts, job 0x{job.hex()}: JSONDecodeError"):
        NodeStore(path)
    assert rows_of(url_of(path)) == before


def test_more_receipts_than_one_batch_are_migrated(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        others = "task, receipt, cost, stored_at, acknowledged"
        for _ in range(8):
            db.execute(f"INSERT INTO receipts SELECT randomblob(32), {others} FROM receipts")
        db.commit()
    jobs = {row["job"] for row in rows_of(url_of(path))["receipts"]}
    assert len(jobs) == 2048
    open_url(url_of(path))
    assert {row["job"] for row in rows_of(url_of(path))["receipts"]} == jobs


def test_a_migration_is_told_when_it_begins_and_ends(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="declai.storage")
    for _ in range(2):
        NodeStore(path).close()
    NodeStore(path.with_name("new.db")).close()
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == [
        "migrating the node's store from version 0 to 2",
        "migrated the node's store",
    ]


def test_who_waits_for_another_that_migrates_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="declai.storage")
    monkeypatch.setattr(steps, "TELL_AFTER_S", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other, ThreadPoolExecutor(1) as pool:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN IMMEDIATE")
        opened = pool.submit(open_url, url_of(path))
        while "another process may migrate it" not in caplog.text:
            assert not opened.done()
        other.execute("ROLLBACK")
        opened.result()


def test_who_may_not_migrate_leaves_a_store_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreTooOld, match="has version 0, this program reads version 2"):
        NodeStore(path, may_migrate=False)
    assert path.read_bytes() == before
    NodeStore(path).close()
    NodeStore(path, may_migrate=False).close()


def test_the_store_of_a_gateway_is_no_nodes(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    Store(url_of(path)).close()
    with pytest.raises(StoreError, match="not the node's store, it has the table declai_gateway_version"):
        NodeStore(path)


def test_versions_of_another_program_are_not_ours(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        db.execute("INSERT INTO alembic_version VALUES ('ae1027a6acf')")
        db.commit()
    NodeStore(path).close()
    assert rows_of(url_of(path))["declai_node_version"] == [{"version_num": "0002"}]


def test_the_steps_lead_to_the_tables_that_the_program_uses(path: Path, tmp_path: Path) -> None:
    for file in (path, tmp_path / "new.db"):
        NodeStore(file).close()
        engine = create_engine(url_of(file))
        with engine.connect() as db:
            context = MigrationContext.configure(db, opts={"compare_type": False})  # SQLite has no boolean type
            found = without_versions(compare_metadata(context, schema.metadata))
        engine.dispose()
        # SQLAlchemy does not see ON DELETE where SQLite has it beside a column.
        assert not [change for change in found if change[0] not in ("add_fk", "remove_fk")]


def test_the_newest_step_is_the_version_that_the_program_writes() -> None:
    folder = Path(migrations.__file__).parent
    script = ScriptDirectory(str(folder), version_locations=[str(folder)])
    assert script.get_heads() == [f"{schema.MIGRATIONS.version:04}"]


def test_a_store_of_a_later_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    NodeStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE declai_node_version SET version_num = '0009'")
        db.commit()
    before = rows_of(url_of(path))
    with pytest.raises(StoreError, match="the node's store has version 9, this program writes version 2: use the"):
        NodeStore(path)
    assert rows_of(url_of(path)) == before


def test_a_receipt_of_a_later_format_is_refused_with_the_reason(path: Path) -> None:
    store = NodeStore(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE receipts SET format = 2")
        db.commit()
    with pytest.raises(StoreError, match="format 2, this program reads format 1"):
        store.unpaid()
    store.close()
