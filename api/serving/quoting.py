"""A plan and its price for what is to be generated, out of the nodes that live now."""

from __future__ import annotations

import asyncio

from declai.api.errors import NoCapacity
from declai.api.nodes.directory import NodeDirectory
from declai.api.serving.stage_jobs import Generation
from declai.chain.pricing import Tier
from declai.planning.errors import NoPlan, TooManyStages
from declai.planning.quotes import Question, Quote, quote


async def quote_now(
    directory: NodeDirectory,
    generation: Generation,
    tier: Tier,
    fee_bps: int,
    *,
    max_cost: int | None,
    excluded: frozenset[str] = frozenset(),
) -> Quote:
    """Choose among the live nodes, without the `excluded` ones. `max_cost` (base units): prefer what costs no more.

    Raises:
        NoCapacity: the free ones do not cover the model.
    """
    model = generation.model
    question = Question(
        num_layers=model.manifest.num_layers,
        hidden_size=model.manifest.hidden_size,
        num_prompt_tokens=len(generation.prompt_token_ids),
        max_tokens=generation.max_tokens,
        tier=tier,
        numeric_profile=generation.numeric_profile,
        max_cost=max_cost,
    )
    offers = directory.offers(model.id, model.manifest_cid)
    try:
        return await asyncio.to_thread(quote, offers, directory.link_speeds(), question, fee_bps, excluded)
    except TooManyStages as error:
        raise NoCapacity(str(error), param="model") from None
    except NoPlan as error:
        ranges = ", ".join(f"{first}-{end - 1}" for first, end in error.uncovered)
        num_full = sum(offer.num_running >= offer.capacity for offer in offers)
        raise NoCapacity(
            f"no free node serves layers {ranges} of {model.name} now ({len(offers)} live, {num_full} of them full): "
            "try again in a few seconds",
            param="model",
            details={"layers": error.uncovered, "num_nodes_live": len(offers), "num_nodes_full": num_full},
        ) from None
