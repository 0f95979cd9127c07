"""`POST /v1/estimate`: what a chat or completion body may cost, before anything is signed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Discriminator, Tag

from declai.api.http.caller import gateway_of
from declai.api.http.schemas import ChatRequest, CompletionRequest
from declai.chain.pricing import format_credits

router = APIRouter(tags=["generation"])


def _kind(body: Any) -> str:
    return "chat-body" if isinstance(body, dict) and "messages" in body else "completion-body"


AnyRequest = Annotated[
    Annotated[ChatRequest, Tag("chat-body")] | Annotated[CompletionRequest, Tag("completion-body")],
    Discriminator(_kind),
]


@router.post("/v1/estimate")
async def estimate(request: Request, asked: AnyRequest) -> dict[str, Any]:
    """The plan that would be chosen now and the most that it may cost: the body is that of the request itself."""
    gateway = gateway_of(request)
    generation, quote = await gateway.intake.estimate(asked.parsed())
    num_choices = asked.n or 1
    return {
        "object": "estimate",
        "model": generation.model.name,
        "manifest_cid": generation.model.manifest_cid,
        "num_prompt_tokens": len(generation.prompt_token_ids),
        "max_tokens": generation.max_tokens,
        "tier": asked.tier,
        "n": num_choices,
        "max_cost": str(quote.max_cost * num_choices),
        "max_cost_credits": format_credits(quote.max_cost * num_choices),
        "fee_bps": gateway.settings.fee_bps,
        "seconds": round(quote.plan.seconds, 4),
        "stages": [
            {
                "node": stage.offer.address,
                "layers": [stage.first_layer, stage.end_layer],
                "prompt_price": str(stage.offer.prompt_price),
                "output_price": str(stage.offer.output_price),
                "max_cost": str(cost * num_choices),
            }
            for stage, cost in zip(quote.plan.stages, quote.stage_costs, strict=True)
        ],
    }
