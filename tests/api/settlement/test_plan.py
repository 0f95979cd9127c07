"""The choice of a claim, against a model of the ledger: it is accepted, and pays each request once."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from declai.api.settlement.plan import Room, SessionClaim, choose_claim
from declai.api.store.records import Claimable, RequestState, StoredRequest
from declai.chain.messages import InferenceRequest


@dataclass
class Served:
    """A request of the model: acknowledges `acked_below` at its start, ends (or not yet) with a cost."""

    nonce: int
    acked_below: int
    spent: int
    cost: int
    batch: int | None = None

    def claimable(self) -> Claimable:
        message = InferenceRequest(
            session=bytes(32),
            nonce=self.nonce,
            model=bytes(32),
            body=bytes(32),
            max_tokens=1,
            tier=0,
            max_cost=self.cost,
            acked_below=self.acked_below,
            spent=self.spent,
            deadline=0,
        )
        state, name = RequestState.FINISHED, hex(self.nonce)
        row = StoredRequest(name, message, b"", state, self.cost, 0, "stop", 1, 1, None, batch=self.batch, created_at=0)
        return Claimable(row, num_receipts=3, record_bytes=254)


class Ledger:
    """`InferenceLedger._debitSession`, to the letter."""

    def __init__(self) -> None:
        self.settled = 0

    def debit(self, claim: SessionClaim) -> int:
        nonces = [request.message.nonce for request in claim.listed]
        newest = claim.listed[-1].message
        assert nonces == sorted(set(nonces))
        assert nonces[0] >= newest.acked_below, "AlreadyAcknowledged"
        total = newest.spent + sum(request.cost for request in claim.listed)
        assert total >= self.settled, "BelowSettled"
        amount, self.settled = total - self.settled, total
        return amount


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Begin, end the i-th of those that run, or settle with room for n claims."""
    step = st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 3)),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("settle"), st.integers(1, 4)),
    )
    return draw(st.lists(step, max_size=40))


# The first one: an older request ends after a newer one was settled, and only its own claim would fit.
@example([("begin", 1), ("begin", 1), ("end", 1), ("settle", 1), ("end", 0), ("settle", 1)], 1)
@given(histories(), st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_claims_pay_every_request_once_whatever_the_order_of_ends(
    history: list[tuple[str, int]], num_requests: int
) -> None:
    ledger, ended, running = Ledger(), dict[int, Served](), dict[int, Served]()
    nonce = batch = 0

    def settle(room: Room) -> bool:
        nonlocal batch
        rows = [ended[number].claimable() for number in sorted(ended) if ended[number].cost]
        claim = choose_claim(rows, room, alone=True)
        if claim is None:
            return False
        assert claim.settled_before == ledger.settled
        assert ledger.debit(claim) == claim.debit == sum(request.cost for request in claim.members)
        batch += 1
        for request in claim.members:
            served = ended[request.message.nonce]
            assert served.batch is None
            served.batch = batch
        return True

    for kind, number in history:
        if kind == "begin":
            # A payer acknowledges all, or less, of the longest prefix that has ended.
            prefix = min(running, default=nonce)
            acked_below = max(prefix - number, 0)
            spent = sum(served.cost for served in ended.values() if served.nonce < acked_below)
            running[nonce] = Served(nonce, acked_below, spent, cost=(nonce * 7 + number) % 5)
            nonce += 1
        elif kind == "end" and running:
            served = running.pop(sorted(running)[number % len(running)])
            ended[served.nonce] = served
        elif kind == "settle":
            settle(Room(number, 3 * num_requests, 10**6))
    while settle(Room(3, 3 * num_requests, 10**6)):
        pass
    assert all(served.batch is not None for served in ended.values() if served.cost)
    assert ledger.settled == sum(served.cost for served in ended.values())
