"""The durable store, on SQLite and on PostgreSQL: replays, ends, acknowledgements, several processes at once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from declai.api.errors import GatewayError, NonceReplayed, Overloaded
from declai.api.store import keys, schema
from declai.api.store.store import Store
from tests.support.stored_requests import begin, finish, message_of

SESSION = "0x" + "5e" * 32


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store(store_url)
    yield opened
    opened.close()


def test_a_nonce_is_used_once_whoever_asks_first(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        attempts = [pool.submit(begin, store, SESSION, 7, 1) for _ in range(8)]
    errors = [attempt.exception() for attempt in attempts]
    assert sum(error is None for error in errors) == 1
    assert all(error is None or isinstance(error, NonceReplayed) for error in errors)
    begin(store, SESSION, 8, 1)
    begin(store, "0x" + "0a" * 32, 7, 1)


def test_nothing_begins_below_what_is_acknowledged(store: Store) -> None:
    """Who acknowledges nonces that he did not use yet cannot use them afterwards, and so get them for nothing."""
    finish(store, begin(store, SESSION, 0, 10), 10)
    assert store.spent_below(SESSION, 5) == (10, 0, 0)
    with pytest.raises(NonceReplayed, match="below 5"):
        begin(store, SESSION, 3, 1)
    begin(store, SESSION, 5, 1)
    assert store.session_totals(SESSION).next_nonce == 6


def test_what_runs_cannot_be_acknowledged(store: Store) -> None:
    first, second = begin(store, SESSION, 0, 10), begin(store, SESSION, 1, 10)
    finish(store, second, 4)
    assert store.spent_below(SESSION, 2) == (4, 1, 0)
    assert store.acknowledgement(SESSION) == (0, 0, 1)
    finish(store, first, 3)
    assert store.acknowledgement(SESSION) == (2, 7, 0)
    assert store.spent_below(SESSION, 1) == (3, 0, 1), "an older acknowledgement still adds up"


def test_a_request_ends_once(store: Store) -> None:
    request = begin(store, SESSION, 0, 10)
    finish(store, request, 6)
    finish(store, request, 9)
    store.fail_request(request, "too late")
    found = store.request(request)
    assert found is not None
    assert (found.state, found.cost) == ("finished", 6)
    assert store.session_totals(SESSION).finished_total == 6


def test_totals_hold_while_requests_begin_and_end_at_once(store: Store) -> None:
    """Readers see every request as running or in the total, never in neither."""
    num_requests, cap = 24, 5

    def serve(nonce: int) -> None:
        finish(store, begin(store, SESSION, nonce, cap), cap)

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(serve, nonce) for nonce in range(num_requests)]
        seen = []
        while not all(item.done() for item in work):
            totals = store.session_totals(SESSION)
            seen.append(totals.finished_total + sum(totals.running.values()))
    assert [item.result() for item in work] == [None] * num_requests
    assert seen == sorted(seen), "cap is cost here: what is spent and held only grows"
    assert store.session_totals(SESSION).finished_total == num_requests * cap


def test_what_was_given_up_cannot_be_finished(store: Store) -> None:
    """Or a gateway that was taken for dead would sign that it owes receipts which it can never settle."""
    request = begin(store, SESSION, 0, 10)
    store.fail_request(request, "given up")
    with pytest.raises(GatewayError, match=r"given up.*; nothing is charged"):
        finish(store, request, 6)
    assert store.session_totals(SESSION).finished_total == 0


def test_processes_that_open_a_new_store_at_once_all_succeed(store_url: str) -> None:
    with ThreadPoolExecutor(12) as pool:
        stores = list(pool.map(lambda _: Store(store_url), range(12)))
    for number, store in enumerate(stores):
        begin(store, SESSION, number, 1)
        store.close()


def test_api_keys_expire(store: Store) -> None:
    store.add_api_key("a" * 64, SESSION, "0xpayer", time.time() + 60)
    store.add_api_key("b" * 64, SESSION, "0xpayer", time.time() - 1)
    assert store.api_key("a" * 64) == (SESSION, "0xpayer")
    assert store.api_key("b" * 64) is None
    assert store.api_key("c" * 64) is None


def test_sign_in_nonces_are_used_once_and_do_not_fill_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_SIGNIN_NONCES", 5)
    for number in range(5):
        store.add_signin_nonce(f"nonce{number}", time.time() + 60)
    with pytest.raises(Overloaded):
        store.add_signin_nonce("one too many", time.time() + 60)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(store.take_signin_nonce, ["nonce1"] * 4)) == 1
    store.add_signin_nonce("old", time.time() - 1)
    assert not store.take_signin_nonce("old")


def test_sqlite_syncs_every_commit(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'deep' / 'gateway.db'}")
    with store.engine.connect() as db:
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    store.close()


def test_the_widest_nonces_and_amounts_come_back_exactly(store: Store) -> None:
    request = f"0x{secrets.token_hex(32)}"
    nonce, amount = schema.MAX_INTEGER, 2**128 - 1
    message = message_of(SESSION, nonce, amount)
    store.begin_request(request, message, bytes(65))
    finish(store, request, amount)
    found = store.request(request)
    assert found is not None
    assert (found.message, found.cost) == (message, amount)
    with store.engine.connect() as db:
        assert db.execute(select(schema.requests.c.nonce)).scalar_one() == nonce
