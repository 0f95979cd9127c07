"""Settlement: what sessions owe by their payers' own words, and who is paid from it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from declai.chain.messages import InferenceRequest
from tests.contracts.model.accounts import settles_for
from tests.contracts.model.reference import Anchor, Content, Reference, refuse_if, refused_with


class Line(NamedTuple):
    """A claim of a batch: a request, who signed it, what it cost."""

    request: InferenceRequest
    signed_by: str
    cost: int


def settle(
    model: Reference,
    sender: str,
    gateway: str,
    lines: Sequence[Line],
    content: Content,
    faulted: Sequence[str],
    slot: int,
) -> None:
    """Sum of debits = sum of payouts + fee."""
    paid = sum(amount for _, amount in content.payouts)
    anchor = model.anchors.get((gateway, slot))
    free_at = anchor.settled_at + model.parameters.batch_retention_s if anchor else model.now
    reasons = {
        "InferenceLedgerNotAuthorized": not settles_for(model, sender, gateway),
        "InferenceLedgerFaultWithoutPayout": not _is_subsequence(faulted, [node for node, _ in content.payouts]),
        "InferenceLedgerSlotBusy": model.now < free_at,
    }
    with refused_with(reasons):
        totals, debited = debits(model, gateway, lines)
    fee = debited - paid
    refuse_if(
        InferenceLedgerPayoutsExceedDebits=fee < 0,
        InferenceLedgerFeeTooHigh=fee * 10_000 > paid * model.parameters.max_fee_bps,
        **reasons,
    )
    for session, total in totals.items():
        model.sessions[session].settled = total
    for node, amount in content.payouts:
        model.earn(node, amount)
    model.fees[gateway] += fee
    model.anchors[gateway, slot] = Anchor(content, model.now)


def debits(model: Reference, gateway: str, lines: Sequence[Line]) -> tuple[dict[bytes, int], int]:
    """What each session has then paid in total, and the sum of what that adds to what they had paid.

    Lines of one session stand together; if they do not, each group counts as if it were a batch of its own.
    """
    totals: dict[bytes, int] = {}
    debited = 0
    for session, run in groupby(lines, key=lambda line: line.request.session):
        settled = totals.get(session, model.sessions[session].settled if session in model.sessions else 0)
        totals[session] = _total(model, gateway, session, list(run), settled)
        debited += totals[session] - settled
    return totals, debited


def _total(model: Reference, gateway: str, session: bytes, run: list[Line], settled: int) -> int:
    """`spent` of the newest request and the costs of all that it does not acknowledge."""
    self, newest = model.sessions.get(session), run[-1].request
    is_ours = self is not None and self.terms.gateway == gateway
    by_key = [self is not None and line.signed_by == self.terms.key for line in run]
    reasons = {
        "InferenceLedgerNoSuchSession": not (is_ours and all(by_key)),
        "InferenceLedgerInvalidSignature": len({line.signed_by for line in run}) > 1,
        "InferenceLedgerCostAboveCap": any(line.cost > line.request.max_cost for line in run),
        "InferenceLedgerNonceNotRising": any(b.request.nonce <= a.request.nonce for a, b in pairwise(run)),
        "InferenceLedgerAlreadyAcknowledged": any(line.request.nonce < newest.acked_below for line in run),
    }
    total = newest.spent + sum(line.cost for line in run)
    if self is not None:
        reasons["InferenceLedgerBelowSettled"] = total < settled
        reasons["InferenceLedgerBudgetExceeded"] = total > self.budget
    refuse_if(**reasons)
    return total


def _is_subsequence(short: Sequence[str], long: Sequence[str]) -> bool:
    rest = iter(long)
    return all(item in rest for item in short)
