"""What a gateway checks before it owes for a job: the nodes' receipts against what it ordered and what it saw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from declai.api.errors import AttemptFailed
from declai.api.serving.context import ServingContext
from declai.api.serving.stage_jobs import Generation
from declai.api.store.store import StoredStage
from declai.chain.pricing import gateway_fee, request_cost
from declai.planning.placement import NodeOffer, Plan
from declai.protocol.job_checks import Charge, JobPapers, verify_job
from declai.protocol.jobs import StageJob
from declai.protocol.plan_checks import ChainFacts, StageOrder
from declai.protocol.receipt_checks import Transcript
from declai.protocol.receipts import SignedReceipt


def facts_of(context: ServingContext, generation: Generation, plan: Plan) -> ChainFacts:
    """What is known when a job is placed. A gateway whose fee is above the ledger's maximum does not start."""
    workers = context.directory.registry.workers
    offers = {stage.offer.address: [stage.offer] for stage in plan.stages}
    return ChainFacts(
        domain=context.domain,
        gateway_signer=context.account.address,
        node_signers={address: workers[address].signer for address in offers},
        num_layers={generation.model.manifest.num_layers},
        max_fee_bps=context.fee_bps,
        offers=offers,
    )


def with_node(facts: ChainFacts, context: ServingContext, offer: NodeOffer) -> ChainFacts:
    """The facts with another node that takes part."""
    signer = context.directory.registry.workers[offer.address].signer
    return replace(
        facts,
        node_signers={**facts.node_signers, offer.address: signer},
        offers={**(facts.offers or {}), offer.address: [offer]},
    )


def checked_stages(
    jobs: Sequence[StageJob], receipts: Sequence[SignedReceipt], transcript: Transcript, facts: ChainFacts, fee_bps: int
) -> list[StoredStage]:
    """The stages of a job with their receipts, in order. Hashes every token.

    Raises:
        AttemptFailed: something does not hold; the node that it is about is named.
    """
    costs = [signed.receipt.cost for signed in receipts]
    papers = JobPapers(
        request=jobs[0].request,
        orders=[StageOrder(job.assignment, job.assignment_signature, job.ring.from_position) for job in jobs],
        receipts=receipts,
        num_prompt_tokens=len(transcript.prompt_token_ids),
        num_output_tokens=len(transcript.output_token_ids),
        charge=Charge(request_cost(costs, fee_bps), gateway_fee(costs, fee_bps)),
    )
    problems = verify_job(papers, facts, transcript, now=int(time.time()))
    if problems:
        first = problems[0]
        raise AttemptFailed(str(first), None if first.stage is None else jobs[first.stage].assignment.node)
    return [
        StoredStage(job.stage, job.assignment, job.assignment_signature, receipt)
        for job, receipt in zip(jobs, receipts, strict=True)
    ]
