"""Which nodes would serve a request, and the most that it may cost there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from declai.chain.pricing import Tier, request_cost, stage_cost
from declai.planning.errors import TooManyStages
from declai.planning.placement import Demand, LinkSpeeds, NodeOffer, Plan, PlannedStage, place
from declai.protocol.ring import MAX_STAGES

# Of a number in hidden states, whatever the profile: a plan is made before the profile is known.
LARGEST_ITEM_BYTES = 4
# What a second is worth against price when a plan is chosen, in credits, by tier.
CREDITS_PER_SECOND = {Tier.RESEARCH: 1e-5, Tier.PRODUCTION: 1e-3, Tier.REALTIME: 1e-1}


@dataclass(frozen=True)
class Question:
    """What a plan is wanted for. `max_cost` (base units): prefer a cheaper plan to one that costs more."""

    num_layers: int
    hidden_size: int
    num_prompt_tokens: int
    max_tokens: int
    tier: Tier
    numeric_profile: int | None = None
    max_cost: int | None = None


@dataclass(frozen=True)
class Quote:
    """A plan; for every stage the most that it may earn, and the most that the request may cost, in base units."""

    plan: Plan
    stage_costs: tuple[int, ...]
    max_cost: int


def quote(
    offers: Sequence[NodeOffer],
    links: LinkSpeeds,
    question: Question,
    fee_bps: int,
    excluded: frozenset[str] = frozenset(),
) -> Quote:
    """Choose nodes and price the worst case. `offers` are those of the live nodes for the model's version, `links` what
    these measured of each other.

    Raises:
        NoPlan, TooManyStages: the free ones do not cover the model, or only in more pieces than a job may have.
    """
    found = _quote(offers, links, question, fee_bps, excluded, CREDITS_PER_SECOND[question.tier])
    if question.max_cost is not None and found.max_cost > question.max_cost:
        return _quote(offers, links, question, fee_bps, excluded, 0.0)
    return found


def _quote(
    offers: Sequence[NodeOffer],
    links: LinkSpeeds,
    question: Question,
    fee_bps: int,
    excluded: frozenset[str],
    credits_per_second: float,
) -> Quote:
    demand = Demand(
        num_layers=question.num_layers,
        num_prompt_tokens=question.num_prompt_tokens,
        num_output_tokens=question.max_tokens,
        tier_bps=question.tier.factor_bps,
        credits_per_second=credits_per_second,
        bytes_per_position=question.hidden_size * LARGEST_ITEM_BYTES,
    )
    plan = place(offers, demand, links, excluded=excluded, numeric_profile=question.numeric_profile)
    if len(plan.stages) > MAX_STAGES:
        raise TooManyStages(len(plan.stages), MAX_STAGES)
    costs = tuple(_max_stage_cost(stage, question) for stage in plan.stages)
    return Quote(plan, costs, request_cost(costs, fee_bps))


def _max_stage_cost(stage: PlannedStage, question: Question) -> int:
    return stage_cost(
        num_prompt_tokens=question.num_prompt_tokens,
        num_output_tokens=question.max_tokens,
        prompt_price=stage.offer.prompt_price,
        output_price=stage.offer.output_price,
        num_layers=stage.num_layers,
        tier=question.tier,
    )
