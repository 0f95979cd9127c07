"""DisputeCourt: equivocation and payout challenges."""

from __future__ import annotations

from dataclasses import dataclass

from chain.contracts.binding import Binding, Call
from chain.contracts.ledger import Inclusion
from chain.messages import InferenceReceipt


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
    gateway: str
    amount: int
    node: str


class DisputeCourt(Binding):
    """Receipts are named by their EIP-712 digests, signatures have 65 bytes."""

    name = "DisputeCourt"

    def balance_of(self, account: str) -> int:
        """What an account is owed, in base units."""
        return int(self._read("balanceOf", account))

    def parameters(self) -> CourtParameters:
        return self._read_row(CourtParameters, "parameters")

    def challenge(self, receipt: bytes) -> Challenge:
        return self._read_row(Challenge, "challenge", receipt)

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

    def decide_challenge(self, receipt: bytes) -> Call:
        return self._call("decideChallenge", receipt)
