"""What a gateway checks of a job: each token as it comes; before it owes, receipts against what it ordered and saw."""

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
from declai.protocol.failures import FailureCode
from declai.protocol.job_checks import Charge, JobPapers, verify_job
from declai.protocol.jobs import StageJob
from declai.protocol.plan_checks import ChainFacts, StageOrder
from declai.protocol.receipt_checks import Transcript
from declai.protocol.receipts import SignedReceipt
from declai.protocol.wire import Token


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


def token_problem(token: Token, index: int, generation: Generation) -> str | None:
    """What is wrong with a token of the last stage that must be output token `index`; None: nothing."""
    position = len(generation.prompt_token_ids) + index
    if (token.index, token.position) != (index, position) or index >= generation.max_tokens:
        return f"the last stage sent token {token.index} in place of {index}"
    highest = max([token.token_id, *(token_id for token_id, _ in token.top_logprobs)])
    if highest >= generation.model.manifest.vocab_size:
        return f"token id {highest} is outside the vocabulary"
    if len(token.top_logprobs) > generation.options.top_logprobs:
        return "the last stage sent more log probabilities than it was asked for"
    return None


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
        suspect = None if first.stage is None else jobs[first.stage].assignment.node
        raise AttemptFailed(FailureCode.INVALID_RECEIPT, str(first), suspect)
    return [
        StoredStage(job.stage, job.assignment, job.assignment_signature, receipt)
        for job, receipt in zip(jobs, receipts, strict=True)
    ]
