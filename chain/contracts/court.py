"""DisputeCourt: what is proved against nodes and gateways, and compute disputes up to the verdict's execution."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from declai.chain.contracts.binding import Binding, Call
from declai.chain.contracts.ledger import Inclusion
from declai.chain.messages import Assignment, InferenceReceipt, InferenceRequest


@dataclass(frozen=True)
class CourtParameters:
    """Periods in seconds, the bond in base units, shares in basis points; see IDisputeCourt.Parameters."""

    challenge_period_s: int
    answer_period_s: int
    evidence_period_s: int
    jail_period_s: int
    challenge_bond: int
    equivocation_bps: int
    reward_bps: int
    fine_bps: int


@dataclass(frozen=True)
class Challenge:
    """A challenge of a payout. `decided_at` (Unix seconds) is zero when it has ended."""

    challenger: str
    decided_at: int
    node: str
    amount: int


@dataclass(frozen=True)
class DisputeParameters:
    """Periods in seconds, amounts in base units; see IComputeDisputes.DisputeParameters."""

    dispute_period_s: int
    opening_period_s: int
    cap_bps: int
    dispute_bond: int
    juror_fee: int
    juror_penalty: int


class DisputePhase(IntEnum):
    """Where a dispute stands: waiting for the accused's bytes, before a jury, over."""

    NONE = 0
    OPENING = 1
    TRIAL = 2
    ENDED = 3


class DisputeVerdict(IntEnum):
    """What jurors found; none while they did not, or could not agree."""

    NONE = 0
    ACQUITTED = 1
    WARNED = 2
    CONVICTED = 3


@dataclass(frozen=True)
class Dispute:
    """A dispute over one chunk; amounts in base units, times in Unix seconds."""

    accused: str
    opened_at: int
    phase: DisputePhase
    verdict: DisputeVerdict
    challenger: str
    cap: int
    payer: str
    cost: int
    assignment: bytes


@dataclass(frozen=True)
class EquivocationProof:
    """An assignment, the receipt for it and all its records. `gateway` signed the assignment; `tail` is what the last
    stage appends to its record chain (`protocol.commitments.output_record`), 32 zero bytes for every other stage."""

    gateway: str
    assignment: Assignment
    assignment_signature: bytes
    receipt: InferenceReceipt
    receipt_signature: bytes
    records: bytes
    tail: bytes = bytes(32)

    def as_struct(self) -> tuple[Any, ...]:
        signed = (self.assignment.as_struct(), self.assignment_signature)
        return self.gateway, *signed, self.receipt.as_struct(), self.receipt_signature, self.records, self.tail


class DisputeCourt(Binding):
    """Receipts are named by their EIP-712 digests, signatures have 65 bytes."""

    name = "DisputeCourt"

    def balance_of(self, account: str) -> int:
        """What an account is owed, in base units."""
        return int(self._read("balanceOf", account))

    def parameters(self) -> CourtParameters:
        return self._read_row(CourtParameters, "parameters")

    def challenge(self, gateway: str, receipt: bytes) -> Challenge:
        return self._read_row(Challenge, "challenge", gateway, receipt)

    def equivocated(self, operator: str, assignment: bytes) -> bool:
        return bool(self._read("equivocated", operator, assignment))

    def withdraw(self) -> Call:
        return self._call("withdraw")

    def prove_equivocation(
        self, first: InferenceReceipt, first_signature: bytes, second: InferenceReceipt, second_signature: bytes
    ) -> Call:
        pair = (first.as_struct(), first_signature, second.as_struct(), second_signature)
        return self._call("proveEquivocation", *pair)

    def challenge_payout(self, gateway: str, receipt: InferenceReceipt, acceptance: bytes) -> Call:
        return self._call("challengePayout", gateway, receipt.as_struct(), acceptance)

    def answer_challenge(self, receipt: bytes, inclusion: Inclusion) -> Call:
        return self._call("answerChallenge", receipt, inclusion.as_struct())

    def decide_challenge(self, gateway: str, receipt: bytes) -> Call:
        return self._call("decideChallenge", gateway, receipt)

    def jury_address(self) -> str:
        """Where jurors sit and vote."""
        return str(self._read("jury"))

    def dispute_parameters(self) -> DisputeParameters:
        return self._read_row(DisputeParameters, "disputeParameters")

    def dispute(self, dispute_id: bytes) -> Dispute:
        accused, opened_at, phase, verdict, *rest = self._read("dispute", dispute_id)
        return Dispute(accused, opened_at, DisputePhase(phase), DisputeVerdict(verdict), *rest)

    def dispute_over(self, assignment: bytes, chunk: int) -> bytes:
        """Id of the newest dispute over a chunk; 32 zero bytes when there never was one."""
        return bytes(self._read("disputeOver", assignment, chunk))

    def has_bad_records(self, operator: str, assignment: bytes) -> bool:
        return bool(self._read("hasBadRecords", operator, assignment))

    def prove_bad_record(self, evidence: EquivocationProof, index: int) -> Call:
        return self._call("proveBadRecord", evidence.as_struct(), index)

    def open_dispute(self, evidence: EquivocationProof, request: InferenceRequest, chunk: int) -> Call:
        return self._call("openDispute", evidence.as_struct(), request.as_struct(), chunk)

    def publish_opening(self, dispute_id: bytes, cid: str) -> Call:
        return self._call("publishOpening", dispute_id, cid)

    def appeal(self, dispute_id: bytes) -> Call:
        return self._call("appeal", dispute_id)

    def finalize(self, dispute_id: bytes) -> Call:
        return self._call("finalize", dispute_id)

    def ledger_address(self) -> str:
        return str(self._read("ledger"))

    def examiner_address(self) -> str:
        return str(self._read("examiner"))
