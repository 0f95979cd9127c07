"""Direct claims: a node whose gateway is silent takes its pay from the session, within what the payer signed."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from declai.chain.messages import Assignment, InferenceReceipt, InferenceRequest, digest
from tests.contracts.model import sessions
from tests.contracts.model.accounts import MAX_CREDITS
from tests.contracts.model.reference import Claim, Place, Reference, refuse_if

TIER_FACTORS = (Fraction(1), Fraction(5, 2), Fraction(5))


class Work(NamedTuple):
    """A request and an assignment, and whose key signed each; None: nobody's."""

    request: InferenceRequest
    ordered_by: str | None
    assignment: Assignment
    assigned_by: str | None


def open_claim(model: Reference, sender: str, work: Work, receipt: InferenceReceipt) -> None:
    self = sessions.existing(model, work.request.session)
    request, assignment = digest(work.request, model.domain), digest(work.assignment, model.domain)
    node, deadline, p = work.assignment.node, work.assignment.deadline, model.parameters
    claimed = model.claimed[request] + receipt.cost
    last = min(deadline + p.claim_period_s, self.ends_at + p.session_thaw_s)
    too_dear = (
        receipt.output_tokens > work.request.max_tokens
        or receipt.cost > price(work.assignment, work.request.tier, receipt)
        or claimed > min(work.request.max_cost, MAX_CREDITS)
    )
    refuse_if(
        InferenceLedgerUnrelated=work.assignment.request != request or receipt.assignment != assignment,
        **_unsigned(model, work),
        InferenceLedgerNotNode=receipt.node != node or not model.acts_for(sender, node),
        InferenceLedgerAlreadyClaimed=assignment in model.claims,
        InferenceLedgerNotClaimable=not deadline + p.claim_delay_s <= model.now <= last,
        InferenceLedgerZeroAmount=receipt.cost == 0,
        InferenceLedgerCostAbovePrice=too_dear,
        InferenceLedgerPayoutChallenged=(self.terms.gateway, digest(receipt, model.domain)) in model.challenges,
        InferenceLedgerInsufficientBalance=p.claim_bond > model.balances[node],
    )
    model.balances[node] -= p.claim_bond
    model.claimed[request] = claimed
    pays_at = model.now + p.claim_window_s
    hashed, cap = digest(receipt, model.domain), _signed_total(work.request)
    claim = Claim(node, receipt.cost, hashed, self.terms.session, work.request.nonce, pays_at, cap)
    model.claims[assignment] = claim


def _signed_total(request: InferenceRequest) -> int:
    """What the payer signed for in all; not known where it has other requests in flight."""
    total = request.spent + request.max_cost if request.acked_below == request.nonce else MAX_CREDITS
    return min(total, MAX_CREDITS)


def price(assignment: Assignment, tier: int, receipt: InferenceReceipt) -> int:
    """What a stage costs at most, rounded down to the payer's favour."""
    tokens = receipt.prompt_tokens * assignment.prompt_price + receipt.output_tokens * assignment.output_price
    layers = max(assignment.end_layer - assignment.first_layer, 0)
    return int(Fraction(tokens * layers, 10**6) * TIER_FACTORS[tier])


def void_by_inclusion(model: Reference, sender: str, session: bytes, assignment: bytes, place: Place) -> None:
    """The receipt was paid in a batch of the session's gateway."""
    claim = _under_way(model, session, assignment)
    about_it = (place.receipt, place.cost, place.gateway) == (
        claim.receipt,
        claim.amount,
        model.sessions[session].terms.gateway,
    )
    refuse_if(
        InferenceLedgerNotIncluded=not (about_it and model.is_included(place) and place.node == claim.node),
    )
    asked_at = (claim.pays_at or 0) - model.parameters.claim_window_s
    _void(model, claim, sender if model.settled_before(place, asked_at) else claim.node)


def void_by_receipt(
    model: Reference,
    sender: str,
    session: bytes,
    assignment: Assignment,
    other: InferenceReceipt,
    signed_by: str | None,
) -> None:
    """The node signed another receipt for the same work: the payer has its bond, and the claim does not count."""
    hashed, shown, p = digest(assignment, model.domain), digest(other, model.domain), model.parameters
    claim = _under_way(model, session, hashed)
    is_word = model.speaks_for(signed_by, claim.node, p.claim_period_s + p.claim_window_s)
    refuse_if(
        InferenceLedgerNoOtherReceipt=other.assignment != hashed or shown == claim.receipt or not is_word,
    )
    model.claimed[assignment.request] -= claim.amount
    _void(model, claim, model.sessions[session].terms.payer)


def void_by_acknowledgement(model: Reference, sender: str, assignment: bytes, later: Work) -> None:
    """Payer and gateway agree on what all requests up to the claimed one cost: batches took that much, and the gateway
    owes what it accepted; or the claim is paid only as far as that total allows."""
    claim = _under_way(model, later.request.session, assignment)
    self, spent = model.sessions[claim.session], later.request.spent
    cap = min(spent, MAX_CREDITS)
    taken_by_batches = self.settled - self.paid_directly
    refuse_if(
        InferenceLedgerUnrelated=later.assignment.request != digest(later.request, model.domain),
        **_unsigned(model, later),
        InferenceLedgerNotAcknowledged=later.request.acked_below <= claim.nonce,
        InferenceLedgerCapNotHigher=taken_by_batches < spent and claim.acknowledged and cap <= claim.cap,
    )
    if taken_by_batches >= spent:
        _void(model, claim, sender)
    else:
        claim.cap, claim.acknowledged = cap, True


def pay_claim(model: Reference, sender: str, session: bytes, assignment: bytes) -> None:
    """Nobody voided it in time; anyone may call."""
    claim = _under_way(model, session, assignment)
    refuse_if(InferenceLedgerClaimRunning=model.now < (claim.pays_at or 0))
    self = model.sessions[session]
    claim.pays_at = None
    claim.amount = min(claim.amount, max(min(claim.cap, self.budget) - self.settled, 0))
    self.settled += claim.amount
    self.paid_directly += claim.amount
    model.balances[claim.node] += model.parameters.claim_bond
    model.earn(claim.node, claim.amount)


def _unsigned(model: Reference, work: Work) -> dict[str, bool]:
    """The session's key orders, its gateway assigns; a retired signer's word counts until claims would be over."""
    terms, p = model.sessions[work.request.session].terms, model.parameters
    counts = model.speaks_for(work.assigned_by, terms.gateway, p.claim_period_s + p.claim_window_s)
    return {
        "InferenceLedgerInvalidSignature": work.ordered_by != terms.key,
        "InferenceLedgerNotAssigned": not counts,
    }


def _under_way(model: Reference, session: bytes, assignment: bytes) -> Claim:
    sessions.existing(model, session)
    claim = model.claims.get(assignment)
    refuse_if(InferenceLedgerNoClaim=claim is None or claim.pays_at is None)
    assert claim is not None
    refuse_if(InferenceLedgerUnrelated=claim.session != session)
    return claim


def _void(model: Reference, claim: Claim, to: str) -> None:
    """The bond goes to whoever knew better. What was claimed stays counted, so that nobody claims twice."""
    claim.pays_at, claim.amount = None, 0
    model.balances[to] += model.parameters.claim_bond
