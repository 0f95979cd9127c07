"""Stores of older releases open with all that is in them; stores of later ones are refused; kills lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from declai.api.errors import StoreUnusable
from declai.api.store import migrations, schema
from declai.api.store.store import Store
from declai.chain.fields import to_hex
from declai.chain.messages import Domain, digest, recover
from tests.support.old_databases import (
    clone,
    copy_of,
    is_sound,
    killed_openings,
    load_dump,
    narrowed,
    rows_of,
    without_versions,
)

DOMAIN = Domain(chain_id=31337, ledger="0x" + "11" * 20)


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh_copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes copies of a store that version 1 wrote."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{copy_of('v1/gateway.db', tmp_path_factory.mktemp('v1'))}"
    loaded = load_dump("v1/gateway.sql", request.getfixturevalue("postgres"))
    return lambda: clone(loaded)


def test_a_store_of_the_first_version_opens_with_all_that_is_in_it(fresh_copy: Callable[[], str]) -> None:
    url = fresh_copy()
    before = rows_of(url)
    assert {(row["state"], row["batch"] is None) for row in before["requests"]} == {
        ("running", True),
        ("failed", True),
        ("finished", True),
        ("finished", False),
    }
    store = Store(url)
    after = rows_of(url)
    assert before.pop("schema_version") == [{"version": 1}]
    assert after["schema_version"] == [{"version": 2}], "the first release refuses it now"
    assert narrowed(after, before) == before
    assert all((row["format"], row["owner"]) == (1, None) for row in after["requests"])
    assert all(row["format"] == 1 for row in after["stages"])

    payers, signers = set(), set()
    for row in before["requests"]:
        found = store.request(row["request"])
        assert found is not None
        assert to_hex(digest(found.message, DOMAIN)) == found.request
        assert (to_hex(found.message.session), found.message.nonce) == (row["session"], row["nonce"])
        assert (found.state, found.cost, found.error) == (row["state"], int(row["cost"] or 0), row["error"])
        payers.add(recover(found.message, DOMAIN, found.signature))
        for stage in store.request_stages(found.request):
            assert stage.assignment.request == digest(found.message, DOMAIN)
            receipt = stage.receipt.receipt
            assert receipt.assignment == digest(stage.assignment, DOMAIN)
            signers.add((recover(stage.assignment, DOMAIN, stage.assignment_signature), receipt.node))
            assert recover(receipt, DOMAIN, stage.receipt.signature) == receipt.node
    assert (len(payers), len(signers)) == (1, 1)
    store.close()


def test_a_migrated_store_is_written_on(fresh_copy: Callable[[], str]) -> None:
    store = Store(fresh_copy())
    first = next(row for row in rows_of(str(store.engine.url))["requests"] if row["state"] == "running")
    found = store.request(first["request"])
    assert found is not None
    store.fail_request(found.request, "gone")
    message = found.message.model_copy(update={"nonce": 77})
    store.begin_request("0x" + "ab" * 32, message, found.signature)
    assert store.request("0x" + "ab" * 32) is not None
    assert store.plan_batch(b"r" * 32, "bafk", b"", []) == 4, "the batches of before are three"
    store.close()


def test_a_kill_at_every_statement_of_a_migration_loses_nothing(fresh_copy: Callable[[], str]) -> None:
    before = rows_of(fresh_copy())
    before.pop("schema_version")
    num_killed = 0
    for url in killed_openings(Store, fresh_copy):
        Store(url).close()
        after = rows_of(url)
        assert after["schema_version"] == [{"version": 2}]
        assert narrowed(after, before) == before
        if url.startswith("sqlite"):
            assert is_sound(Path(url.removeprefix("sqlite:///")))
        num_killed += 1
    assert num_killed > 10


def test_the_steps_lead_to_the_tables_that_the_program_uses(store_url: str, fresh_copy: Callable[[], str]) -> None:
    for url in (store_url, fresh_copy()):
        store = Store(url)
        with store.engine.connect() as db:
            context = MigrationContext.configure(db, opts={"compare_type": True})
            found = without_versions(compare_metadata(context, schema.metadata))
            keys = inspect(db).get_foreign_keys("requests")
        store.close()
        # SQLAlchemy does not see ON DELETE where SQLite has it beside a column.
        assert url.startswith("sqlite") or not found
        assert not [change for change in found if change[0] not in ("add_fk", "remove_fk")]
        assert {key["referred_table"] for key in keys} == {"batches", "processes"}


def test_the_newest_step_is_the_version_that_the_program_writes() -> None:
    folder = Path(migrations.__file__).parent
    script = ScriptDirectory(str(folder), version_locations=[str(folder)])
    assert script.get_heads() == [f"{schema.MIGRATIONS.version:04}"]


def test_a_store_of_a_later_release_is_refused_and_left_alone(store_url: str) -> None:
    store = Store(store_url)
    with store.engine.begin() as db:
        db.execute(text("UPDATE declai_gateway_version SET version_num = '0007'"))
    store.close()
    before = rows_of(store_url)
    with pytest.raises(StoreUnusable, match="has version 7, this program writes version 2: use the DeCLAI release"):
        Store(store_url)
    assert rows_of(store_url) == before


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="not mysql: change"):
        Store("mysql://localhost/x")
    path = tmp_path / "gateway.db"
    path.write_bytes(b"requests, but not in SQLite's words" * 100)
    with pytest.raises(StoreUnusable, match=f"cannot open {path}: file is not a database"):
        Store(f"sqlite:///{path}")
    with pytest.raises(StoreUnusable, match=r"cannot open gateway at 127\.0\.0\.1: "):
        Store("postgresql+psycopg://somebody@127.0.0.1:1/gateway")
