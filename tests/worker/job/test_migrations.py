"""Node stores of older releases open with every receipt that is in them; kills on the way lose nothing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from declai.chain.fields import to_hex
from declai.chain.messages import digest, recover
from declai.protocol.receipts import SignedReceipt, acceptance_of
from declai.worker.errors import StoreError
from declai.worker.job.store import NodeStore, StoredReceipt, migrations, schema
from tests.support.old_databases import Rows, copy_of, is_sound, killed_openings, narrowed, rows_of

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
    assert num_killed > 30


def test_the_steps_lead_to_the_tables_that_the_program_uses(path: Path, tmp_path: Path) -> None:
    for file in (path, tmp_path / "new.db"):
        NodeStore(file).close()
        engine = create_engine(url_of(file))
        with engine.connect() as db:
            context = MigrationContext.configure(db, opts={"compare_type": False})  # SQLite has no boolean type
            found = compare_metadata(context, schema.metadata)
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
        db.execute("UPDATE alembic_version SET version_num = '0009'")
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
