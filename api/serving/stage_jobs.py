"""What is to be generated, and the signed jobs of its stages."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from declai.api.credits.admission import Admitted
from declai.api.serving.catalog import ServedModel
from declai.api.serving.context import ServingContext
from declai.chain.messages import Assignment, sign
from declai.chain.pricing import Tier, request_cost, stage_cost
from declai.planning.formats import stage_format
from declai.planning.placement import NodeOffer, Plan
from declai.protocol.jobs import StageJob
from declai.protocol.options import GenerationOptions
from declai.protocol.ring import Ring
from declai.protocol.wire import PromptFormat

# A promise to run, and the longest that a job may take.
ASSIGNMENT_TTL_S = 3600


@dataclass(frozen=True)
class Generation:
    """What is to be generated; `prompt_token_ids` and `max_tokens` fit the model's context. `exact`: no link may round
    hidden states, whatever the gateway allows."""

    model: ServedModel
    prompt_token_ids: Sequence[int]
    max_tokens: int
    options: GenerationOptions
    numeric_profile: int | None = None
    exact: bool = False


def stage_jobs(
    context: ServingContext, admitted: Admitted, generation: Generation, plan: Plan, ring: Ring
) -> list[StageJob]:
    """One job per stage, the assignments signed; `ring` has one replica a stage, in the plan's order."""
    deadline = int(time.time()) + ASSIGNMENT_TTL_S
    num_stages = len(plan.stages)
    formats = prompt_formats(context, generation, plan)
    needs_prompt = generation.options.sampling.needs_prompt
    jobs = []
    for number, stage in enumerate(plan.stages):
        (replica,) = ring.stages[number]
        assignment = Assignment(
            request=bytes.fromhex(admitted.request[2:]),
            stage=number,
            first_layer=stage.first_layer,
            end_layer=stage.end_layer,
            numeric_profile=stage.offer.numeric_profile,
            shard=generation.model.manifest.shard_root(stage.first_layer, stage.end_layer),
            node=stage.offer.address,
            prompt_price=stage.offer.prompt_price,
            output_price=stage.offer.output_price,
            attempt=replica.attempt,
            deadline=deadline,
        )
        is_last = number == num_stages - 1
        job = StageJob(
            chain_id=context.domain.chain_id,
            ledger=context.domain.ledger,
            request=admitted.message,
            request_signature=admitted.signature,
            assignment=assignment,
            assignment_signature=sign(assignment, context.domain, context.account),
            model_name=generation.model.name,
            manifest_cid=generation.model.manifest_cid,
            num_stages=num_stages,
            attempt=ring.attempt,
            gateway=ring.gateway,
            ring=ring.view(number),
            num_prompt_tokens=len(generation.prompt_token_ids),
            max_tokens=generation.max_tokens,
            prompt_format_in=formats[number],
            prompt_format_out=formats[number + 1],
            options=generation.options if is_last else None,
            eos_token_ids=tuple(generation.model.manifest.eos_token_ids) if is_last else (),
            # The last stage sees hidden states; where its draw needs the prompt's tokens, it must be told them.
            prompt_token_ids=tuple(generation.prompt_token_ids) if is_last and needs_prompt else (),
        )
        jobs.append(job)
    return jobs


def replacement_job(context: ServingContext, job: StageJob, offer: NodeOffer, ring: Ring) -> StageJob:
    """The job of a node that takes a stage's place in this ring: the same by an assignment of its own."""
    own = {
        "node": offer.address,
        "prompt_price": offer.prompt_price,
        "output_price": offer.output_price,
        "attempt": ring.stages[job.stage][0].attempt,
    }
    assignment = Assignment.model_validate(job.assignment.model_dump() | own)
    changed = {
        "assignment": assignment,
        "assignment_signature": sign(assignment, context.domain, context.account),
        "ring": ring.view(job.stage),
    }
    return StageJob.model_validate(job.model_dump() | changed)


def max_cost(jobs: Sequence[StageJob], fee_bps: int) -> int:
    """The most that a request may cost when these are its stages, in base units."""
    costs = [
        stage_cost(
            num_prompt_tokens=job.num_prompt_tokens,
            num_output_tokens=job.max_tokens,
            prompt_price=job.assignment.prompt_price,
            output_price=job.assignment.output_price,
            num_layers=job.num_layers,
            tier=Tier(job.request.tier),
        )
        for job in jobs
    ]
    return request_cost(costs, fee_bps)


def prompt_formats(context: ServingContext, generation: Generation, plan: Plan) -> list[PromptFormat]:
    """How the prompt comes to each stage and leaves the last: between two of them hidden states travel."""
    coarsest = "profile" if generation.exact else context.coarsest_prompt_format
    links, stages = context.directory.link_speeds(), plan.stages
    num_tokens, hidden_size = len(generation.prompt_token_ids), generation.model.manifest.hidden_size
    between = [
        stage_format(here, links.get((here.offer.address, there.offer.address)), num_tokens, hidden_size, coarsest)
        for here, there in itertools.pairwise(stages)
    ]
    return ["profile", *between, "profile"]
