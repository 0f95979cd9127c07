"""What the chain owes a node, and the next step to get it.

A receipt that no batch pays is claimed from its session (`InferenceLedger.openClaim`) once the gateway's time to settle
is over. When a batch took the payer's money and left the receipt out, or a claim is no longer possible, the gateway's
signed acceptance makes its stake liable (`DisputeCourt.challengePayout`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from eth_account.signers.local import LocalAccount

from declai.chain.client import Chain
from declai.chain.contracts.court import CourtParameters
from declai.chain.contracts.ledger import ZERO_ADDRESS, DirectClaim, LedgerParameters, SignedWork
from declai.chain.messages import digest
from declai.chain.pricing import format_credits
from declai.chain.sender import TransactionSender
from declai.chain.state import SettledBatch
from declai.contributor.batches import may_pay
from declai.errors import DeclaiError
from declai.protocol.receipt_checks import MAX_CLOCK_SKEW_S
from declai.worker.job.store import NodeStore, StoredJob, StoredReceipt


class Status(StrEnum):
    """How a receipt stands that no batch pays."""

    WAITING = "waiting"  # the gateway still has time to settle
    CLAIMABLE = "claimable"
    CLAIMED = "claimed"
    CHALLENGEABLE = "challengeable"
    CHALLENGED = "challenged"
    ENDED = "ended"  # its claim was paid, its challenge is over, or it costs nothing
    UNKNOWN = "unknown"  # a batch that cannot be read may have paid it
    REFUSED = "refused"  # payer and gateway agreed on a total without it, and the gateway never accepted it
    LATE = "late"  # nothing can be done any more


class Step(StrEnum):
    """What can be done about it now."""

    CLAIM = "open_claim"
    LIFT = "lift_claim"
    PAY = "pay_claim"
    CHALLENGE = "challenge"
    DECIDE = "decide"


@dataclass(frozen=True)
class Owed:
    """An unpaid receipt. `at`: Unix seconds of the next change, 0 for none. `bond`: the step's, in base units.

    `later`: the job whose request lifts the claim.
    """

    kept: StoredReceipt
    status: Status
    step: Step | None = None
    at: int = 0
    bond: int = 0
    later: StoredJob | None = None

    @property
    def receipt(self) -> bytes:
        """The receipt's EIP-712 digest."""
        return digest(self.kept.receipt.receipt, self.kept.job.domain)

    @property
    def cost(self) -> int:
        return self.kept.receipt.receipt.cost


class Survey:
    """Judges receipts at one moment of the chain's time. `unreadable` are the batches that nobody could read."""

    def __init__(
        self,
        chain: Chain,
        unreadable: Sequence[SettledBatch] = (),
        *,
        jobs: Sequence[StoredJob] = (),
        believe_unread: bool = False,
    ) -> None:
        """`jobs`: whose requests may lift a claim. `believe_unread`: unreadable batches pay none of the receipts."""
        self._chain = chain
        self._jobs = jobs
        self._unreadable = () if believe_unread else unreadable
        self._settled_at: dict[int, int] = {}
        self.now = chain.timestamp()

    @functools.cached_property
    def _ledger(self) -> LedgerParameters:
        return self._chain.ledger.parameters()

    @functools.cached_property
    def _court(self) -> CourtParameters:
        return self._chain.court.parameters()

    def judge(self, kept: StoredReceipt) -> Owed:
        """How a receipt stands and what can be done now."""
        if not kept.receipt.receipt.cost:
            return Owed(kept, Status.ENDED)
        claim = self._chain.ledger.direct_claim(kept.job.assignment_digest)
        if claim.pays_at:
            return self._judge_claimed(kept, claim)
        receipt = digest(kept.receipt.receipt, kept.job.domain)
        challenge = self._chain.court.challenge(kept.job.gateway.address, receipt)
        if challenge.decided_at:
            step = Step.DECIDE if self.now >= challenge.decided_at else None
            return Owed(kept, Status.CHALLENGED, step, challenge.decided_at)
        if claim.amount >= kept.receipt.receipt.cost or challenge.challenger != ZERO_ADDRESS:
            return Owed(kept, Status.ENDED)
        if any(may_pay(batch, kept) and self._is_later(batch, kept) for batch in self._unreadable):
            return Owed(kept, Status.UNKNOWN)
        return self._judge_unclaimed(kept, claim)

    def _judge_claimed(self, kept: StoredReceipt, claim: DirectClaim) -> Owed:
        """A claim under way. What the session pays for later requests, to whomever, counts against its cap until one
        that acknowledges it lifts the cap. Had batches taken all that one acknowledges, it would end the claim."""
        request = kept.job.request
        others = [job for job in self._jobs if job.request.session == request.session]
        since = [job for job in others if job.request.acked_below > request.nonce]
        later = max(since, key=lambda job: job.request.spent, default=None)
        if later and later.request.spent > max(claim.cap, self._chain.ledger.session(request.session).settled):
            return Owed(kept, Status.CLAIMED, Step.LIFT, claim.pays_at, later=later)
        return Owed(kept, Status.CLAIMED, Step.PAY if self.now >= claim.pays_at else None, claim.pays_at)

    def _is_later(self, batch: SettledBatch, kept: StoredReceipt) -> bool:
        """Whether a batch was settled after the work was done. Old ones that nobody keeps must not block new work."""
        if batch.block not in self._settled_at:
            self._settled_at[batch.block] = self._chain.timestamp(batch.block)
        return self._settled_at[batch.block] + MAX_CLOCK_SKEW_S >= kept.receipt.receipt.finished_at

    def is_over(self, owed: Owed) -> bool:
        """Whether no reorganisation and no step can change anything any more."""
        deadline, finished_at = owed.kept.job.assignment.deadline, owed.kept.receipt.receipt.finished_at
        claim_until = deadline + self._ledger.claim_period_s + self._ledger.claim_window_s
        challenge_until = finished_at + self._court.challenge_period_s + self._court.answer_period_s
        over = owed.status in (Status.ENDED, Status.LATE, Status.REFUSED)
        return over and self.now > max(claim_until, challenge_until)

    def _judge_unclaimed(self, kept: StoredReceipt, claim: DirectClaim) -> Owed:
        """A receipt without a challenge, and without a claim that is under way or was paid in full."""
        challenge_until = kept.receipt.receipt.finished_at + self._court.challenge_period_s
        was_claimed = claim.node != ZERO_ADDRESS  # and fell, or the session had not enough left
        if not kept.left_out and not was_claimed:
            first, until = self._claim_times(kept)
            if self.now < first <= until:
                return Owed(kept, Status.WAITING, at=first)
            if first <= self.now <= until:
                return Owed(kept, Status.CLAIMABLE, Step.CLAIM, until, self._ledger.claim_bond)
        if kept.acceptance is None and claim.amount:
            return Owed(kept, Status.ENDED)
        if kept.acceptance is None:
            return Owed(kept, Status.REFUSED if kept.left_out or was_claimed else Status.LATE)
        if self.now > challenge_until:
            return Owed(kept, Status.LATE)
        return Owed(kept, Status.CHALLENGEABLE, Step.CHALLENGE, challenge_until, self._court.challenge_bond)

    def _claim_times(self, kept: StoredReceipt) -> tuple[int, int]:
        """(first, last) Unix second of a direct claim; the last is 0 when the session is closed."""
        deadline, session = kept.job.assignment.deadline, self._chain.ledger.session(kept.job.request.session)
        first = deadline + self._ledger.claim_delay_s
        if not session.exists:
            return first, 0
        return first, min(deadline + self._ledger.claim_period_s, session.ends_at + self._ledger.thaw_period_s)


class Collector:
    """Takes the steps, paid by `account`: the node's operator, or its signer."""

    def __init__(self, chain: Chain, account: LocalAccount) -> None:
        self._chain = chain
        self._address = str(account.address)
        self._sender = TransactionSender(chain, account)

    def take(self, owed: Owed) -> bytes:
        """Take a receipt's step; returns the transaction's hash.

        Raises:
            DeclaiError: the bond is not there.
            ContractRevert: the contract refuses; somebody may have been faster.
        """
        steps: dict[Step, Callable[[Owed], bytes]] = {
            Step.CLAIM: self._claim,
            Step.LIFT: self._lift,
            Step.PAY: self._pay,
            Step.CHALLENGE: self._challenge,
            Step.DECIDE: self._decide,
        }
        assert owed.step is not None
        return steps[owed.step](owed)

    def collect(self) -> int:
        """Bring what the court owes this account into its wallet; returns the base units."""
        amount = self._chain.court.balance_of(self._address)
        if amount:
            self._sender.send(self._chain.court.withdraw())
        return amount

    def _claim(self, owed: Owed) -> bytes:
        job = owed.kept.job
        node = job.assignment.node
        if node not in (self._address, self._chain.nodes.operator_of(self._address)):
            raise DeclaiError(
                f"only a node's operator and its signer open direct claims, and {self._address} is not {node} or its "
                "signer now: name the operator's wallet with --wallet"
            )
        held = self._chain.ledger.balance_of(node)
        if held < owed.bond:
            raise DeclaiError(
                f"a claim's bond is {format_credits(owed.bond)} credits and {node} has {format_credits(held)} in the "
                "ledger: add some with `declai credits deposit`"
            )
        call = self._chain.ledger.open_claim(_signed(job), owed.kept.receipt.receipt)
        return bytes(self._sender.send(call)["transactionHash"])

    def _lift(self, owed: Owed) -> bytes:
        assert owed.later is not None
        call = self._chain.ledger.void_by_acknowledgement(owed.kept.job.assignment_digest, _signed(owed.later))
        return bytes(self._sender.send(call)["transactionHash"])

    def _pay(self, owed: Owed) -> bytes:
        job = owed.kept.job
        call = self._chain.ledger.pay_claim(job.request.session, job.assignment_digest)
        return bytes(self._sender.send(call)["transactionHash"])

    def _challenge(self, owed: Owed) -> bytes:
        token, court, acceptance = self._chain.token, self._chain.court, owed.kept.acceptance
        assert acceptance is not None
        held = token.balance_of(self._address)
        if held < owed.bond:
            raise DeclaiError(
                f"a challenge's bond is {format_credits(owed.bond)} credits and the wallet {self._address} holds "
                f"{format_credits(held)}: fetch some from the ledger with `declai credits withdraw`"
            )
        if token.allowance(self._address, court.address) < owed.bond:
            self._sender.send(token.approve(court.address, owed.bond))
        call = court.challenge_payout(owed.kept.job.gateway.address, owed.kept.receipt.receipt, acceptance)
        return bytes(self._sender.send(call)["transactionHash"])

    def _decide(self, owed: Owed) -> bytes:
        call = self._chain.court.decide_challenge(owed.kept.job.gateway.address, owed.receipt)
        return bytes(self._sender.send(call)["transactionHash"])


def _signed(job: StoredJob) -> SignedWork:
    return SignedWork(job.request, job.request_signature, job.assignment, job.assignment_signature)


def close_what_is_over(store: NodeStore, survey: Survey, found: Sequence[Owed]) -> None:
    """Look no more at receipts for which nothing can come any more."""
    for owed in found:
        if survey.is_over(owed):
            store.close_receipt(owed.kept.job.job_id)
