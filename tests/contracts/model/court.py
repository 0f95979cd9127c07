"""What signatures alone prove: a gateway that did not pay what it accepted, a node with two receipts for one job."""

from __future__ import annotations

from declai.chain.messages import InferenceReceipt, digest
from tests.contracts.model import stakes
from tests.contracts.model.accounts import MAX_CREDITS
from tests.contracts.model.reference import Challenge, Place, Reference, refuse_if


def challenge_payout(
    model: Reference, sender: str, gateway: str, receipt: InferenceReceipt, accepted_by: str | None
) -> None:
    """The gateway signed the acceptance: it shows the receipt in a batch, or pays from its stake."""
    hashed, p = digest(receipt, model.domain), model.parameters
    claim = model.claims.get(receipt.assignment)
    refuse_if(
        DisputeCourtNotSignedBy=not model.speaks_for(accepted_by, gateway, p.evidence_period_s),
        DisputeCourtNotNode=not model.acts_for(sender, receipt.node),
        DisputeCourtAlreadyChallenged=(gateway, hashed) in model.challenges,
        DisputeCourtNothingOwed=not 0 < receipt.cost <= MAX_CREDITS,
        DisputeCourtClaimedDirectly=claim is not None and (claim.pays_at is not None or receipt.cost <= claim.amount),
        DisputeCourtTooLate=model.now > receipt.finished_at + p.challenge_period_s,
        ERC20InsufficientBalance=p.challenge_bond > model.wallets[sender],
    )
    model.move(sender, model.court, p.challenge_bond)
    owed = receipt.cost - (claim.amount if claim else 0)
    model.challenges[gateway, hashed] = Challenge(sender, model.now + p.answer_period_s, owed, receipt.node)


def answer_challenge(model: Reference, sender: str, receipt: bytes, place: Place) -> None:
    """Anyone may answer, and has the bond, if the batch was there before the challenge."""
    challenge = _under_way(model, place.gateway, receipt)
    about_it = place.receipt == receipt and place.cost >= challenge.amount
    refuse_if(
        DisputeCourtNotIncluded=not (about_it and model.is_included(place) and place.node == challenge.node),
    )
    asked_at = (challenge.decided_at or 0) - model.parameters.answer_period_s
    to = sender if model.settled_before(place, asked_at) else challenge.challenger
    challenge.decided_at = None
    model.awards[to] += model.parameters.challenge_bond


def decide_challenge(model: Reference, sender: str, gateway: str, receipt: bytes) -> None:
    """Nobody answered: the node has its pay from the gateway's stake, the treasury the fine."""
    challenge = _under_way(model, gateway, receipt)
    refuse_if(DisputeCourtStillOpen=model.now < (challenge.decided_at or 0))
    challenge.decided_at = None
    model.awards[challenge.challenger] += model.parameters.challenge_bond
    fine = challenge.amount * model.parameters.fine_bps // 10_000
    _punish(model, gateway, challenge.amount + fine, challenge.node, challenge.amount)


def prove_equivocation(
    model: Reference,
    sender: str,
    first: InferenceReceipt,
    first_by: str | None,
    second: InferenceReceipt,
    second_by: str | None,
) -> None:
    """Costs a share of all that can still be taken, of which the reporter has a share, and a stay in jail."""
    operator, p = first.node, model.parameters
    signed = all(model.speaks_for(signer, operator, p.evidence_period_s) for signer in (first_by, second_by))
    refuse_if(
        DisputeCourtOtherAssignment=first.assignment != second.assignment,
        DisputeCourtSameReceipt=first == second,
        DisputeCourtNotSignedBy=not signed,
        DisputeCourtAlreadyProved=(operator, first.assignment) in model.equivocated,
    )
    model.equivocated.add((operator, first.assignment))
    node = model.nodes[operator]
    amount = (node.stake + node.thawing) * p.equivocation_bps // 10_000
    _punish(model, operator, amount, sender, amount * p.reward_bps // 10_000)
    node.jailed_until = max(node.jailed_until, model.now + p.jail_period_s)


def withdraw(model: Reference, sender: str) -> None:
    """All that the court owes the sender."""
    refuse_if(DisputeCourtNothingToWithdraw=model.awards[sender] == 0)
    model.move(model.court, sender, model.awards.pop(sender))


def _under_way(model: Reference, gateway: str, receipt: bytes) -> Challenge:
    challenge = model.challenges.get((gateway, receipt))
    refuse_if(DisputeCourtNoChallenge=challenge is None or challenge.decided_at is None)
    assert challenge is not None
    return challenge


def _punish(model: Reference, operator: str, amount: int, to: str, owed: int) -> None:
    """Takes stake, gives `owed` of it to one and the rest to the treasury; of less, each has less."""
    taken = stakes.slash(model, operator, amount)
    given = owed * taken // amount if amount else 0
    model.awards[to] += given
    model.awards[model.parameters.treasury] += taken - given
