"""Budgets against a real Redis: whatever requests, crashes and lost data do, no session is ever over its budget."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from redis.backoff import NoBackoff
from redis.retry import Retry

from declai.api.credits.reservations import MAX_UNITS, UNIT, Reservations
from declai.api.credits.takeover import Takeover
from declai.api.errors import BookkeepingUnavailable, BudgetExhausted
from declai.api.store.records import SessionTotals
from declai.api.store.store import Store
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.devnet.processes import RedisAddress
from tests.support.stored_requests import begin, finish

BUDGET = 10 * UNITS_PER_CREDIT
# Without shrinking: every step syncs to disk, and a failing run prints its steps anyway.
STEPS = settings(max_examples=50, stateful_step_count=30, deadline=None, phases=[Phase.explicit, Phase.generate])
GATEWAY = "0x" + "ab" * 20


AMOUNTS = (
    st.integers(0, BUDGET + 5)
    | st.sampled_from([BUDGET * share // 8 for share in range(1, 9)])
    | st.sampled_from([1, UNIT - 1, UNIT, UNIT + 1, BUDGET - 1])
)


class BudgetMachine(RuleBasedStateMachine):
    """Two gateway processes over one store and one Redis; the model is exact arithmetic."""

    address: RedisAddress

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(f"sqlite:///{self.folder.name}/gateway.db")
        self.client = redis.Redis.from_url(self.address.url)
        self.session = f"0x{secrets.token_hex(32)}"
        self.held: dict[str, int] = {}
        self.spent = 0
        self.nonce = 0

    @initialize()
    def start(self) -> None:
        self.gateways = [Reservations(self.client, self.store, GATEWAY) for _ in range(2)]

    @rule(
        target=running,
        which=st.integers(0, 1),
        amount=AMOUNTS,
    )
    def reserve(self, which: int, amount: int) -> str | None:
        request = begin(self.store, self.session, self.nonce, amount)
        self.nonce += 1
        try:
            self.gateways[which].reserve(self.session, request, amount, BUDGET)
        except BudgetExhausted:
            self.store.fail_request(request, "over budget")
            # Rounding refuses at most one unit a request more than exact arithmetic would.
            slack = (len(self.held) + self.nonce + 1) * UNIT
            assert self.spent + sum(self.held.values()) + amount > BUDGET - slack
            return None
        self.held[request] = amount
        return request

    @rule(which=st.integers(0, 1), request=consumes(running), permille=st.integers(0, 1000), fails=st.booleans())
    def end(self, which: int, request: str | None, permille: int, fails: bool) -> None:
        if request is None or request not in self.held:
            return
        cost = 0 if fails else self.held[request] * permille // 1000
        if fails:
            self.store.fail_request(request, "failed")
        else:
            finish(self.store, request, cost)
        self.gateways[which].release(self.session, request, cost)
        del self.held[request]
        self.spent += cost

    @rule(which=st.integers(0, 1), amount=AMOUNTS, permille=st.integers(1, 1000))
    def serve(self, which: int, amount: int, permille: int) -> None:
        """The usual life of a request, in one step, so that runs get to the budget's end."""
        self.end(which, self.reserve(which, amount), permille, fails=False)

    @rule(which=st.integers(0, 1), request=running)
    def repeat(self, which: int, request: str | None) -> None:
        """A retry of a reservation, or of a release long after: neither changes what is spent."""
        if request in self.held:
            self.gateways[which].reserve(self.session, request, self.held[request], BUDGET)
        elif request is not None:
            self.gateways[which].release(self.session, request, 0)

    @rule(request=consumes(running), permille=st.integers(0, 1000))
    def crash_between_store_and_redis(self, request: str | None, permille: int) -> None:
        if request is None or request not in self.held:
            return
        cost = self.held.pop(request) * permille // 1000
        finish(self.store, request, cost)
        self.spent += cost

    @rule()
    def lose_redis(self) -> None:
        self.client.flushdb()

    @rule(sure=st.integers(0, 2))
    def restart(self, sure: int) -> None:
        """What ran is lost and costs nothing. Only every third time, or no budget would ever be used up."""
        if sure == 0:
            self.store.leave()
            self.held.clear()
            self.gateways = [Reservations(self.client, self.store, GATEWAY) for _ in range(2)]
            Takeover(self.store, self.gateways[0]).look()

    @invariant()
    def never_over_budget(self) -> None:
        assert self.spent + sum(self.held.values()) <= BUDGET
        totals = self.store.session_totals(self.session)
        assert totals.finished_total == self.spent
        assert totals.running == self.held

    def teardown(self) -> None:
        # Nothing leaks: when all has ended and Redis was rebuilt, all that is not spent can be reserved.
        for request in list(self.held):
            self.store.fail_request(request, "over")
            self.gateways[0].release(self.session, request, 0)
        self.gateways[0].forget(self.session)
        left = (BUDGET - self.spent) // UNIT * UNIT - UNIT
        if left > 0:
            last = begin(self.store, self.session, self.nonce, left)
            self.gateways[0].reserve(self.session, last, left, BUDGET)
        self.client.close()
        self.store.close()
        self.folder.cleanup()


def test_a_session_is_never_over_its_budget(redis_server: RedisAddress) -> None:
    BudgetMachine.address = redis_server
    run_state_machine_as_test(BudgetMachine, settings=STEPS)


class InterruptedStore(Store):
    """A store during whose reading of totals something else happens, after they were read."""

    def __init__(self, url: str, meanwhile: Callable[[], None]) -> None:
        super().__init__(url)
        self.meanwhile: Callable[[], None] | None = meanwhile

    def session_totals(self, session: str) -> SessionTotals:
        totals = super().session_totals(session)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return totals


@pytest.mark.parametrize("loses_redis", [False, True])
def test_a_rebuild_from_old_totals_is_thrown_away(
    redis_server: RedisAddress, tmp_path: Path, loses_redis: bool
) -> None:
    """While one process rebuilds, another one loses Redis, rebuilds and reserves: that reservation must count."""
    url, client = f"sqlite:///{tmp_path}/gateway.db", redis.Redis.from_url(redis_server.url)
    session = f"0x{secrets.token_hex(32)}"
    store = Store(url)
    other = Reservations(client, store, GATEWAY)
    half = BUDGET // 2

    def meanwhile() -> None:
        other.forget(session)
        other.reserve(session, begin(store, session, 1, half), half, BUDGET)
        if loses_redis:
            other.forget(session)

    slow = Reservations(client, InterruptedStore(url, meanwhile), GATEWAY)
    slow.reserve(session, begin(store, session, 0, half), half, BUDGET)
    third = begin(store, session, 2, half)
    with pytest.raises(BudgetExhausted):
        other.reserve(session, third, half, BUDGET)
    assert sum(map(int, client.hvals(other._keys(session)[1]))) * UNIT >= BUDGET
    client.close()
    store.close()


def test_what_a_request_cost_is_not_there_for_the_next(redis_server: RedisAddress, tmp_path: Path) -> None:
    """Without a rebuild in between: the release itself must count the cost."""
    store, client = Store(f"sqlite:///{tmp_path}/gateway.db"), redis.Redis.from_url(redis_server.url)
    session, reservations = f"0x{secrets.token_hex(32)}", Reservations(client, store, GATEWAY)
    first = begin(store, session, 0, BUDGET)
    reservations.reserve(session, first, BUDGET, BUDGET)
    finish(store, first, BUDGET // 2)
    reservations.release(session, first, BUDGET // 2)
    assert client.hget(reservations._keys(session)[0], "committed") == str(BUDGET // 2 // UNIT).encode()
    second = begin(store, session, 1, BUDGET // 2 + UNIT)
    with pytest.raises(BudgetExhausted) as refusal:
        reservations.reserve(session, second, BUDGET // 2 + UNIT, BUDGET)
    assert int(refusal.value.details["left"]) <= BUDGET // 2
    client.close()
    store.close()


def test_threads_that_race_and_lose_redis_never_overbook(store_url: str, redis_server: RedisAddress) -> None:
    store, client = Store(store_url), redis.Redis.from_url(redis_server.url)
    session = f"0x{secrets.token_hex(32)}"
    amount, num_threads, num_each = BUDGET // 10, 6, 12
    reserved: list[str] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        reservations = Reservations(client, store, GATEWAY)
        for turn in range(num_each):
            request = begin(store, session, number * num_each + turn, amount)
            try:
                reservations.reserve(session, request, amount, BUDGET)
            except (BudgetExhausted, BookkeepingUnavailable) as error:
                store.fail_request(request, error.message)
                reservations.release(session, request, 0)
                continue
            with lock:
                reserved.append(request)
            if turn % 4 == 1:
                reservations.forget(session)

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(work, range(num_threads)))
    assert len(reserved) == 10
    assert set(store.session_totals(session).running) == set(reserved)
    client.close()
    store.close()


def test_amounts_beyond_what_redis_counts_exactly_are_refused(redis_server: RedisAddress, tmp_path: Path) -> None:
    store, client = Store(f"sqlite:///{tmp_path}/gateway.db"), redis.Redis.from_url(redis_server.url)
    reservations = Reservations(client, store, GATEWAY)
    session = f"0x{secrets.token_hex(32)}"
    vast = MAX_UNITS * UNIT
    for nonce, (amount, budget, fits) in enumerate(
        [(2 * vast, 2 * vast - 1, False), (2**127, 2**96 - 1, False), (vast // 2, 2**96 - 1, True), (vast, vast, False)]
    ):
        request = begin(store, session, nonce, amount)
        if fits:
            reservations.reserve(session, request, amount, budget)
            continue
        with pytest.raises(BudgetExhausted) as refusal:
            reservations.reserve(session, request, amount, budget)
        store.fail_request(request, refusal.value.message)
        assert int(refusal.value.details["left"]) < amount
    client.close()
    store.close()


def test_without_redis_nothing_is_admitted_and_nothing_is_lost(redis_server: RedisAddress, tmp_path: Path) -> None:
    store, client = Store(f"sqlite:///{tmp_path}/gateway.db"), redis.Redis.from_url(redis_server.url)
    session = f"0x{secrets.token_hex(32)}"
    reservations = Reservations(client, store, GATEWAY)
    away = Reservations(redis.Redis(port=1, retry=Retry(NoBackoff(), 0)), store, GATEWAY)
    first = begin(store, session, 0, BUDGET)
    reservations.reserve(session, first, BUDGET, BUDGET)
    second = begin(store, session, 1, 1)
    with pytest.raises(BookkeepingUnavailable):
        away.reserve(session, second, 1, BUDGET)
    for request in (first, second):
        store.fail_request(request, "Redis is away")
        away.release(session, request, 0)
    reservations.reserve(session, begin(store, session, 2, BUDGET), BUDGET, BUDGET)
    client.close()
    store.close()
