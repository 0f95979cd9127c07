"""InferenceLedger: balances, sessions, settlement and direct claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from web3 import Web3

from declai.chain.contracts.binding import Binding, Call
from declai.chain.merkle import SumNode, payout_word
from declai.chain.messages import Assignment, InferenceReceipt, InferenceRequest, SessionClose, compact_signature

ZERO_ADDRESS = "0x" + "00" * 20
ANCHOR_BYTES = 28


@dataclass(frozen=True)
class LedgerParameters:
    """Periods in seconds, the bond in base units; see IInferenceLedger.Parameters."""

    thaw_period_s: int
    epoch_length_s: int
    batch_retention_s: int
    claim_delay_s: int
    claim_period_s: int
    claim_window_s: int
    claim_bond: int
    max_fee_bps: int


@dataclass(frozen=True)
class SessionTerms:
    """Who opened a session with whom; whoever acts on a session brings them."""

    payer: str
    gateway: str
    key: str
    number: int

    @property
    def session(self) -> bytes:
        """The session's id."""
        return session_id(self.payer, self.number)

    def as_struct(self) -> tuple[str, str, str, int]:
        return self.payer, self.gateway, self.key, self.number


@dataclass(frozen=True)
class SessionState:
    """A session as the ledger has it. Amounts in base units, `ends_at` in Unix seconds. All zero: there is none."""

    key: str = ZERO_ADDRESS
    settled: int = 0
    gateway: str = ZERO_ADDRESS
    budget: int = 0
    payer: str = ZERO_ADDRESS
    ends_at: int = 0
    num_claims: int = 0

    @property
    def exists(self) -> bool:
        return self.payer != ZERO_ADDRESS


@dataclass(frozen=True)
class Claim:
    """A signed request (65-byte signature) and what it cost."""

    request: InferenceRequest
    signature: bytes
    cost: int

    def as_struct(self) -> tuple[bytes, bytes, int, int, bytes, bytes]:
        """As IInferenceLedger.Claim packs it."""
        r = self.request
        counts = r.nonce << 192 | r.acked_below << 128 | self.cost
        return r.session, r.work.struct_hash(), counts, r.max_cost << 128 | r.spent, *compact_signature(self.signature)


@dataclass(frozen=True)
class Payout:
    """What a node earned in a batch, in base units."""

    node: str
    amount: int


@dataclass(frozen=True)
class Fault:
    """What a node would have earned for work that it failed, in base units."""

    node: str
    amount: int


@dataclass(frozen=True)
class Inclusion:
    """Path from a receipt (its digest and cost) to a settled batch; see IInferenceLedger.Inclusion."""

    gateway: str
    slot: int
    payouts: tuple[int, ...]
    subroots: tuple[bytes, ...]
    link: bytes
    payout_index: int
    top: bytes
    num_receipts: int
    receipt: bytes
    cost: int
    receipt_index: int
    receipt_proof: tuple[SumNode, ...]

    def as_struct(self) -> tuple[object, ...]:
        return (*list(vars(self).values())[:-1], [(node.hash, node.sum) for node in self.receipt_proof])


@dataclass(frozen=True)
class SignedWork:
    """A request with its assignment and both signatures (65 bytes each)."""

    request: InferenceRequest
    request_signature: bytes
    assignment: Assignment
    assignment_signature: bytes

    def as_struct(self) -> tuple[object, ...]:
        request, assignment = self.request.as_struct(), self.assignment.as_struct()
        return request, self.request_signature, assignment, self.assignment_signature


@dataclass(frozen=True)
class DirectClaim:
    """A node's claim on a session; `pays_at` is zero when it has ended, `node` zero when there never was one."""

    node: str
    amount: int
    receipt: bytes
    session: bytes
    nonce: int
    pays_at: int
    cap: int
    acknowledged: bool


@dataclass(frozen=True)
class OpenedClaim:
    """A direct claim that has not ended, as its event tells it; `receipt` and `assignment` are digests."""

    assignment: bytes
    node: str
    session: bytes
    receipt: bytes
    nonce: int


def session_id(payer: str, number: int) -> bytes:
    """Id of a payer's session: 20 bytes of address, 12 of number."""
    return bytes.fromhex(payer[2:]) + number.to_bytes(12, "big")


def session_number(session: bytes) -> int:
    """The number in a session's id, unique among all sessions of a ledger."""
    return int.from_bytes(session[20:], "big")


class InferenceLedger(Binding):
    """Amounts in base units. Sessions are named by their 32-byte ids; their terms are looked up in the chain's log."""

    name = "InferenceLedger"

    def __init__(self, w3: Web3, address: str, first_block: int = 0) -> None:
        super().__init__(w3, address, first_block)
        self._terms: dict[bytes, SessionTerms] = {}

    def balance_of(self, account: str) -> int:
        return int(self._read("balanceOf", account))

    def fees_of(self, gateway: str) -> int:
        """What a gateway earned and has not collected."""
        return int(self._read("gatewayAccount", gateway)[1])

    def settler_of(self, gateway: str) -> str:
        return str(self._read("gatewayAccount", gateway)[0])

    def terms(self, session: bytes) -> SessionTerms | None:
        """Terms of a session that was ever opened."""
        if session not in self._terms:
            for event in self.log("SessionOpened", session=session):  # one at most
                v = event.values
                self._terms[session] = SessionTerms(v["payer"], v["gateway"], v["key"], v["number"])
        return self._terms.get(session)

    def session(self, session: bytes) -> SessionState:
        """The session's state; one that does not `exist` was never opened or is closed for good."""
        if session in self._terms and (found := self._session(self._terms[session])).exists:
            return found
        # Unknown, closed, or another session since: a reorganisation gives numbers anew.
        self._terms.pop(session, None)
        terms = self.terms(session)
        return SessionState() if terms is None else self._session(terms)

    def _session(self, terms: SessionTerms) -> SessionState:
        budget, settled, ends_at, num_claims = self._read("session", terms.as_struct())
        if budget == 0:
            return SessionState()
        return SessionState(terms.key, settled, terms.gateway, budget, terms.payer, ends_at, num_claims)

    def batch_in(self, gateway: str, slot: int) -> tuple[bytes, int]:
        """What a slot holds: the first 28 bytes of a batch's root, and when it was settled (Unix seconds, or 0)."""
        root, settled_at = self._read("anchor", gateway, slot)
        return bytes(root), int(settled_at)

    def is_settled(self, gateway: str, root: bytes) -> bool:
        """Whether a gateway settled the batch with this root."""
        return any(True for _ in self.log("BatchSettled", batch=root, gateway=gateway))

    def is_included(self, inclusion: Inclusion) -> bool:
        return bool(self._read("isIncluded", inclusion.as_struct()))

    def direct_claim(self, assignment: bytes) -> DirectClaim:
        """`assignment`: its EIP-712 digest."""
        return self._read_row(lambda *row: DirectClaim(*row), "directClaim", assignment)

    def open_claims(self) -> list[OpenedClaim]:
        """The direct claims under way, on all sessions."""
        found = []
        for event in self.log("ClaimOpened"):
            v = event.values
            if self.direct_claim(v["assignment"]).pays_at:
                found.append(OpenedClaim(v["assignment"], v["node"], v["session"], v["receipt"], v["nonce"]))
        return found

    def parameters(self) -> LedgerParameters:
        return self._read_row(LedgerParameters, "parameters")

    def max_fee_bps(self) -> int:
        return self.parameters().max_fee_bps

    def thaw_period_s(self) -> int:
        return self.parameters().thaw_period_s

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

    def set_settler(self, settler: str) -> Call:
        """Let an account settle for the sender's gateway."""
        return self._call("setSettler", settler)

    def collect_fees(self, gateway: str) -> Call:
        return self._call("collectFees", gateway)

    def open_session(self, gateway: str, key: str, budget: int, duration_s: int) -> Call:
        return self._call("openSession", gateway, key, budget, duration_s)

    def top_up(self, session: bytes, amount: int) -> Call:
        return self._call("topUp", self._struct(session), amount)

    def close_session(self, session: bytes) -> Call:
        return self._call("closeSession", self._struct(session))

    def finalize_close(self, session: bytes) -> Call:
        return self._call("finalizeClose", self._struct(session))

    def close_together(self, consent: SessionClose, payer_signature: bytes, gateway_signature: bytes) -> Call:
        terms = self._struct(consent.session)
        return self._call("closeTogether", terms, consent.as_struct(), payer_signature, gateway_signature)

    def settle(
        self,
        gateway: str,
        claims: Sequence[Claim],
        payouts: Sequence[Payout],
        header: bytes,
        slot: int,
        faults: Sequence[Fault] = (),
    ) -> Call:
        """`claims` grouped by session, nonces rising; `faults` in the order of the payouts.

        `header`: sha2-256 digest of `chain.merkle.header_block`.
        """
        words = [payout_word(payout.node, payout.amount) for payout in payouts]
        blamed = [(fault.node, fault.amount) for fault in faults]
        batch = (gateway, [claim.as_struct() for claim in claims], words, blamed, header, slot)
        return self._call("settle", batch)

    def open_claim(self, work: SignedWork, receipt: InferenceReceipt) -> Call:
        return self._call("openClaim", self._struct(work.request.session), work.as_struct(), receipt.as_struct())

    def void_by_inclusion(self, session: bytes, assignment: bytes, inclusion: Inclusion) -> Call:
        return self._call("voidByInclusion", self._struct(session), assignment, inclusion.as_struct())

    def void_by_receipt(
        self, session: bytes, assignment: Assignment, other: InferenceReceipt, signature: bytes
    ) -> Call:
        return self._call("voidByReceipt", self._struct(session), assignment.as_struct(), other.as_struct(), signature)

    def void_by_acknowledgement(self, assignment: bytes, later: SignedWork) -> Call:
        terms = self._struct(later.request.session)
        return self._call("voidByAcknowledgement", terms, assignment, later.as_struct())

    def pay_claim(self, session: bytes, assignment: bytes) -> Call:
        return self._call("payClaim", self._struct(session), assignment)

    def _struct(self, session: bytes) -> tuple[str, str, str, int]:
        # The terms of a session that never was open none: the ledger then says that it does not know the session.
        terms = self.terms(session) or SessionTerms(ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS, session_number(session))
        return terms.as_struct()

    def token_address(self) -> str:
        return str(self._read("token"))

    def nodes_address(self) -> str:
        return str(self._read("nodes"))
