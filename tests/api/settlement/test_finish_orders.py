"""Requests that overlap, end out of order and are acknowledged late, on a real chain: settled to the unit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from declai.api.credits.admission import Admitted, Asked
from declai.api.errors import AcknowledgementMismatch, Overloaded
from declai.chain.contracts.models import model_id
from declai.chain.messages import InferenceRequest, new_account, sign
from declai.chain.pricing import UNITS_PER_CREDIT, Tier
from declai.devnet.processes import RedisAddress
from declai.protocol.signed_requests import SignedHeader
from tests.support.books import MODEL, Books, Market

BUDGET, CAP = 50 * UNITS_PER_CREDIT, UNITS_PER_CREDIT // 10


class Payer:
    """A session whose payer keeps books of his own and acknowledges as much of them as he likes."""

    def __init__(self, books: Books, key: LocalAccount) -> None:
        self.books, self.key = books, key
        self.session = books.market.open_session(BUDGET, key)
        self.next_nonce = 0
        self.costs: dict[int, int] = {}
        self.running: dict[int, Admitted] = {}

    def header(self, nonce: int, acked_below: int, spent: int) -> SignedHeader:
        message = InferenceRequest(
            session=bytes.fromhex(self.session[2:]),
            nonce=nonce,
            model=model_id(MODEL),
            body=BODY_HASH,
            max_tokens=8,
            tier=0,
            max_cost=CAP,
            acked_below=acked_below,
            spent=spent,
            deadline=int(time.time()) + 60,
        )
        signature = sign(message, self.books.market.chain.domain, self.key)
        return SignedHeader(request=message, salt=bytes(32), signature=signature)

    def begin(self, lag: int) -> None:
        """Ask for one more, acknowledging all that ended before the oldest that runs, but `lag` of them."""
        acked_below = max(min(self.running, default=self.next_nonce) - lag, 0)
        spent = sum(cost for nonce, cost in self.costs.items() if nonce < acked_below)
        header = self.header(self.next_nonce, acked_below, spent)
        try:
            admitted = self.books.admission.admit_signed(header, ASKED)
        except Overloaded:
            return  # too much is unacknowledged: another day
        self.running[self.next_nonce] = admitted
        self.next_nonce += 1

    def end(self, which: int, num_output_tokens: int) -> None:
        """End one of those that run; without tokens it failed."""
        nonce = sorted(self.running)[which % len(self.running)]
        admitted = self.running.pop(nonce)
        if num_output_tokens:
            self.costs[nonce] = self.books.finish(admitted, 5, num_output_tokens)
        else:
            self.costs[nonce] = 0
            self.books.admission.fail(admitted, "a stage was lost")

    def settled(self) -> int:
        return self.books.market.session(self.session).settled


BODY: dict[str, Any] = {"model": MODEL}
ASKED = Asked(MODEL, BODY, 8, Tier.RESEARCH, CAP)
BODY_HASH = keccak(bytes(32) + rfc8785.dumps(BODY))


@pytest.fixture(scope="module")
def books(market: Market, tmp_path_factory: pytest.TempPathFactory, redis_server: RedisAddress) -> Iterator[Books]:
    folder: Path = tmp_path_factory.mktemp("orders")
    books = Books(market, folder, f"sqlite:///{folder / 'gateway.db'}", redis_server.url, max_claims=4)
    yield books
    books.close()


STEP = st.one_of(
    st.tuples(st.just("begin"), st.integers(0, 4), st.just(0)),
    st.tuples(st.just("end"), st.integers(0, 5), st.integers(0, 6)),
    st.tuples(st.just("settle"), st.just(0), st.just(0)),
)


@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(STEP, min_size=8, max_size=16))
def test_whatever_the_order_of_ends_the_sum_is_settled(books: Books, steps: list[tuple[str, int, int]]) -> None:
    payer = Payer(books, new_account())
    before = books.market.balances()
    for step, first, second in steps:
        if step == "begin":
            payer.begin(first)
        elif step == "end" and payer.running:
            payer.end(first, second)
        elif step == "settle":
            books.settlement.run()
            assert payer.settled() == sum(payer.costs.values()), "all that has ended is paid, whatever still runs"
    while payer.running:
        payer.end(0, 2)
    books.settlement.run()
    assert books.settlement.run() == []
    after = books.market.balances()
    assert payer.settled() == sum(payer.costs.values()) == sum(after.values()) - sum(before.values())


def test_a_refused_acknowledgement_leaves_no_trace(books: Books) -> None:
    """Who acknowledges beyond his own nonce is refused; the nonces that he did not use stay his."""
    payer = Payer(books, new_account())
    with pytest.raises(AcknowledgementMismatch) as refusal:
        books.admission.admit_signed(payer.header(0, 2**63 - 1, 0), ASKED)
    assert refusal.value.details["spent"] == "0"
    for _ in range(3):
        payer.begin(0)
    assert len(payer.running) == 3


def test_an_acknowledgement_of_another_sum_leaves_no_trace(books: Books) -> None:
    payer = Payer(books, new_account())
    with pytest.raises(AcknowledgementMismatch):
        books.admission.admit_signed(payer.header(5, 5, 1), ASKED)
    payer.begin(0)
    assert len(payer.running) == 1
