"""InferenceLedger: balances, sessions and settlement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chain.contracts.binding import Binding, Call
from chain.messages import Assignment, InferenceReceipt, InferenceRequest, SessionClose, compact_signature

ZERO_ADDRESS = "0x" + "00" * 20


@dataclass(frozen=True)
class SessionState:
    """A session as the ledger has it. Amounts in base units, `ends_at` in Unix seconds."""

    key: str
    settled: int
    gateway: str
    budget: int
    payer: str
    ends_at: int

    @property
    def exists(self) -> bool:
        return self.payer != ZERO_ADDRESS


@dataclass(frozen=True)
class Claim:
    """A signed request (65-byte signature) and what it cost."""

    request: InferenceRequest
    signature: bytes
    cost: int


@dataclass(frozen=True)
class Payout:
    """What a node earned in a batch; `top` is the hash of the top of its receipts' sum tree."""

    node: str
    amount: int
    num_receipts: int
    num_faults: int
    top: bytes


class InferenceLedger(Binding):
    """Amounts in base units."""

    name = "InferenceLedger"

    def balance_of(self, account: str) -> int:
        return int(self._read("balanceOf", account))

    def session(self, session: bytes) -> SessionState:
        return self._read_row(SessionState, "session", session)

    def settled_at(self, gateway: str, root: bytes) -> int:
        """When a gateway settled the batch with this root (Unix seconds), or 0."""
        return int(self._read("settledAt", gateway, root))

    def max_fee_bps(self) -> int:
        return int(self._read("maxFeeBps"))

    def thaw_period_s(self) -> int:
        return int(self._read("thawPeriod"))

    def hash_request(self, request: InferenceRequest) -> bytes:
        return bytes(self._read("hashRequest", request.as_struct()))

    def hash_assignment(self, assignment: Assignment) -> bytes:
        return bytes(self._read("hashAssignment", assignment.as_struct()))

    def hash_receipt(self, receipt: InferenceReceipt) -> bytes:
        return bytes(self._read("hashReceipt", receipt.as_struct()))

    def hash_session_close(self, consent: SessionClose) -> bytes:
        return bytes(self._read("hashSessionClose", consent.as_struct()))

    def deposit(self, amount: int) -> Call:
        return self._call("deposit", amount)

    def withdraw(self, amount: int) -> Call:
        return self._call("withdraw", amount)

    def transfer(self, to: str, amount: int) -> Call:
        return self._call("transfer", to, amount)

    def open_session(self, gateway: str, key: str, budget: int, duration_s: int) -> Call:
        return self._call("openSession", gateway, key, budget, duration_s)

    def top_up(self, session: bytes, amount: int) -> Call:
        return self._call("topUp", session, amount)

    def close_session(self, session: bytes) -> Call:
        return self._call("closeSession", session)

    def finalize_close(self, session: bytes) -> Call:
        return self._call("finalizeClose", session)

    def close_together(self, consent: SessionClose, payer_signature: bytes, gateway_signature: bytes) -> Call:
        return self._call("closeTogether", consent.as_struct(), payer_signature, gateway_signature)

    def settle(self, claims: Sequence[Claim], payouts: Sequence[Payout], cid: str) -> Call:
        """`claims` grouped by session, nonces rising; `payouts` in rising order of the nodes' addresses."""
        claim_rows = [(c.request.as_struct(), c.cost, *compact_signature(c.signature)) for c in claims]
        payout_rows = [(p.node, p.amount, p.num_receipts, p.num_faults, p.top) for p in payouts]
        return self._call("settle", claim_rows, payout_rows, cid)
