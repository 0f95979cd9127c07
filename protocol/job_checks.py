"""All papers of a finished job, checked together: the one rule of gateway, payer, `receipt verify` and auditor.

Each of them brings the papers as it got them and the facts as it knows them, and says what it finds in its own words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from declai.chain.messages import InferenceRequest
from declai.chain.pricing import BPS
from declai.protocol.plan_checks import ChainFacts, StageOrder, verify_plan
from declai.protocol.problems import Problem, ProblemKind
from declai.protocol.receipt_checks import SignedPlan, Transcript, verify_job_receipts
from declai.protocol.receipts import SignedReceipt


@dataclass(frozen=True)
class Charge:
    """What the payer is to pay, in base units, and the gateway's part of it."""

    cost: int
    fee: int


@dataclass(frozen=True)
class JobPapers:
    """What is left of a job: the request, and in the order of the stages what was ordered and what was signed for it.

    `charge` is None where the request is paid for without being named.
    """

    request: InferenceRequest
    orders: Sequence[StageOrder]
    receipts: Sequence[SignedReceipt | None]
    num_prompt_tokens: int
    num_output_tokens: int
    charge: Charge | None


def verify_job(
    papers: JobPapers, facts: ChainFacts, transcript: Transcript | None = None, now: int | None = None
) -> list[Problem]:
    """Everything that does not hold: in the plan, in the receipts alone and beside each other, in the charge.

    Args:
        transcript: for those who may see the tokens.
        now: unix seconds; receipts must not be from later.
    """
    plan = SignedPlan(
        domain=facts.domain,
        request=papers.request,
        assignments=[order.assignment for order in papers.orders],
        signers=facts.node_signers,
        num_prompt_tokens=papers.num_prompt_tokens,
        from_positions=[order.from_position for order in papers.orders],
    )
    return [
        *verify_plan(papers.request, papers.orders, facts),
        *verify_job_receipts(papers.receipts, plan, papers.num_output_tokens, transcript, now),
        *_verify_charge(papers, facts),
    ]


def _verify_charge(papers: JobPapers, facts: ChainFacts) -> list[Problem]:
    """The payer pays what the receipts say and a fee, within the ledger's maximum and the cap that was signed."""
    charge, earned = papers.charge, sum(signed.receipt.cost for signed in papers.receipts if signed is not None)
    if charge is None:
        return []
    found: list[Problem] = []
    if charge.cost != earned + charge.fee or charge.fee < 0:
        text = f"{charge.cost} is charged, receipts and fee make {earned + charge.fee}"
        found.append(Problem(ProblemKind.WRONG_CHARGE, None, text))
    if charge.fee * BPS > earned * facts.max_fee_bps:
        found.append(Problem(ProblemKind.ABOVE_MAX_FEE, None, f"the fee {charge.fee} is above the ledger's maximum"))
    if charge.cost > papers.request.max_cost:
        text = f"{charge.cost} is charged, at most {papers.request.max_cost} was signed"
        found.append(Problem(ProblemKind.ABOVE_CAP, None, text))
    return found
