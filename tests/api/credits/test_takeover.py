"""Several gateway processes over one store: each owns what it runs, and what dead ones ran is ended by the others."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import pytest
import redis
from sqlalchemy import select, update

from declai.api.credits.reservations import Reservations
from declai.api.credits.takeover import ABANDONED, BEAT_EVERY_S, Takeover
from declai.api.errors import GatewayError
from declai.api.store.processes import DEAD_AFTER_S
from declai.api.store.schema import processes, requests
from declai.api.store.store import Store
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.devnet.processes import RedisAddress
from tests.support.stored_requests import begin, finish

BUDGET = 10 * UNITS_PER_CREDIT
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.api.credits.test_takeover"])


class GatewayProcess:
    """What a gateway process has of store and reservations, in this process."""

    def __init__(self, store_url: str, redis_url: str, gateway: str) -> None:
        self.store = Store(store_url)
        self.client = redis.Redis.from_url(redis_url)
        self.reservations = Reservations(self.client, self.store, gateway)
        self.takeover = Takeover(self.store, self.reservations)

    def serve(self, session: str, nonce: int, amount: int = BUDGET // 4) -> str:
        request = begin(self.store, session, nonce, amount)
        self.reservations.reserve(session, request, amount, BUDGET)
        return request

    def fall_silent(self, *, for_s: float = DEAD_AFTER_S + 1) -> None:
        """As if its last beat were so long ago."""
        with self.store.engine.begin() as db:
            mine = processes.c.id == self.store.process_id
            db.execute(update(processes).where(mine).values(beat_at=processes.c.beat_at - for_s))

    def state(self, request: str) -> str:
        found = self.store.request(request)
        assert found is not None
        return found.state

    def held(self, session: str) -> dict[str, int]:
        rows = self.client.hgetall(self.reservations._keys(session)[1])
        return {name.decode(): int(amount) for name, amount in rows.items()}

    def close(self) -> None:
        self.client.close()
        self.store.close()


@pytest.fixture
def gateway() -> str:
    return f"0x{secrets.token_hex(20)}"


@pytest.fixture
def session() -> str:
    return f"0x{secrets.token_hex(32)}"


@pytest.fixture
def open_process(store_url: str, redis_server: RedisAddress, gateway: str) -> Iterator[Callable[[], GatewayProcess]]:
    opened: list[GatewayProcess] = []

    def make() -> GatewayProcess:
        opened.append(GatewayProcess(store_url, redis_server.url, gateway))
        return opened[-1]

    yield make
    for process in opened:
        process.close()


def test_a_second_process_starts_and_ends_nothing(open_process: Callable[[], GatewayProcess], session: str) -> None:
    first = open_process()
    first.takeover.start()
    request = first.serve(session, 0)
    second = open_process()
    second.takeover.start()
    second.takeover.look()
    assert (second.state(request), list(second.held(session))) == ("running", [request])
    second.takeover.close()
    assert first.state(request) == "running"
    assert finish(first.store, request, 5) is None
    assert first.state(request) == "finished"
    first.takeover.close()


def test_what_a_silent_process_ran_ends_and_nothing_else(
    open_process: Callable[[], GatewayProcess], session: str
) -> None:
    dead, living = open_process(), open_process()
    done, lost, other = dead.serve(session, 0), dead.serve(session, 1), living.serve(session, 2)
    finish(dead.store, done, 7)
    living.takeover.look()
    assert living.state(lost) == "running"
    dead.fall_silent()
    living.takeover.look()
    found = living.store.request(lost)
    assert found is not None
    assert (found.state, found.cost, found.error) == ("failed", 0, ABANDONED)
    assert (living.state(done), living.state(other)) == ("finished", "running")
    assert set(living.store.session_totals(session).running) == {other}
    assert lost not in living.held(session)
    # What is free now can be had: all but what was spent, what the other one holds, and the rounding.
    living.serve(session, 3, amount=BUDGET - BUDGET // 4 - 2 * 10**9)


def test_a_process_that_leaves_abandons_at_once(open_process: Callable[[], GatewayProcess], session: str) -> None:
    leaving, staying = open_process(), open_process()
    lost, other = leaving.serve(session, 0), staying.serve(session, 1)
    leaving.store.leave()
    staying.takeover.look()
    assert (staying.state(lost), staying.state(other)) == ("failed", "running")


def test_a_process_that_was_taken_for_dead_owes_nothing_and_serves_on(
    open_process: Callable[[], GatewayProcess], session: str
) -> None:
    slow, judge = open_process(), open_process()
    lost = slow.serve(session, 0)
    judge.takeover.start()
    slow.fall_silent()
    judge.takeover.look()
    with pytest.raises(GatewayError, match="nothing is charged"):
        finish(slow.store, lost, 5)
    slow.takeover.look()
    request = slow.serve(session, 1)
    judge.takeover.look()
    assert judge.state(request) == "running"
    judge.takeover.close()


def test_what_another_ended_in_the_meantime_is_his_to_release(
    open_process: Callable[[], GatewayProcess], session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, judge = open_process(), open_process()
    request = owner.serve(session, 0)
    finish(owner.store, request, 5)
    monkeypatch.setattr(judge.store, "abandoned", lambda: [(session, request)])  # it ran when the judge looked
    judge.takeover.look()
    assert judge.state(request) == "finished"
    assert request in judge.held(session)


def test_who_begins_a_request_is_alive(open_process: Callable[[], GatewayProcess], session: str) -> None:
    busy, judge = open_process(), open_process()
    first = busy.serve(session, 0)
    busy.fall_silent()
    second = busy.serve(session, 1)
    judge.store.beat()
    judge.takeover.look()
    assert (judge.state(first), judge.state(second)) == ("running", "running")


def test_after_a_gap_that_all_had_nobody_is_judged(open_process: Callable[[], GatewayProcess], session: str) -> None:
    """The database was away, or its clock was put forward: all are late by it, and nobody is dead."""
    first, second = open_process(), open_process()
    request = first.serve(session, 0)
    second.store.beat()
    for process in (first, second):
        process.fall_silent(for_s=3600)
    second.takeover.look()
    first.takeover.look()
    second.takeover.look()
    assert second.state(request) == "running"


def test_times_are_the_databases(open_process: Callable[[], GatewayProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose machine has a wrong clock is neither dead nor does it take others for dead."""
    wrong = open_process()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert wrong.store.beat() is None
    silent_s = wrong.store.beat()
    assert silent_s is not None
    assert 0 <= silent_s < DEAD_AFTER_S
    with wrong.store.engine.connect() as db:
        row = db.execute(select(processes)).one()
    assert row.beat_at < 3.9e9
    assert row.pid == os.getpid()


def test_requests_of_a_release_without_owners_end_at_the_start(
    open_process: Callable[[], GatewayProcess], session: str
) -> None:
    old = open_process()
    request = old.serve(session, 0)
    with old.store.engine.begin() as db:
        db.execute(update(requests).values(owner=None))
    new = open_process()
    new.takeover.start()
    assert new.state(request) == "failed"
    new.takeover.close()


def run_process(store_url: str, redis_url: str, gateway: str, session: str, first_nonce: int, told: Connection) -> None:
    """The body of a child: serve two requests for ever."""
    process = GatewayProcess(store_url, redis_url, gateway)
    process.takeover.start()
    told.send([process.serve(session, first_nonce + number) for number in range(2)])
    time.sleep(600)


def test_a_killed_process_is_missed_and_the_others_go_on(
    open_process: Callable[[], GatewayProcess], store_url: str, redis_server: RedisAddress, gateway: str, session: str
) -> None:
    ends = [PROCESSES.Pipe() for _ in range(2)]
    children = [
        PROCESSES.Process(
            target=run_process, args=(store_url, redis_server.url, gateway, session, 10 * number, there), daemon=True
        )
        for number, (_, there) in enumerate(ends)
    ]
    for child in children:
        child.start()
    lost, kept = (here.recv() for here, _ in ends)
    watcher = open_process()
    assert {watcher.state(request) for request in lost + kept} == {"running"}
    assert set(watcher.held(session)) == {*lost, *kept}
    assert children[0].pid is not None
    os.kill(children[0].pid, signal.SIGKILL)
    deadline = time.monotonic() + 3 * DEAD_AFTER_S
    while {watcher.state(request) for request in lost} != {"failed"}:
        assert time.monotonic() < deadline, "nobody missed the killed process"
        time.sleep(BEAT_EVERY_S / 2)
    assert {watcher.state(request) for request in kept} == {"running"}
    assert set(watcher.store.session_totals(session).running) == set(kept)
    # The survivor is alone now: it dropped what Redis held, and the next reservation counts what still runs.
    more = watcher.serve(session, 99)
    assert set(watcher.held(session)) == {*kept, more}
    children[1].kill()
