"""`GET /v1/network`: everything that a client needs to pay this gateway and to check it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from declai.api.http.caller import gateway_of

router = APIRouter(tags=["network"])


@router.get("/v1/network")
async def network(request: Request) -> dict[str, Any]:
    """Chain, contracts, this gateway's names and keys, its fee, its models."""
    gateway = gateway_of(request)
    deployment = gateway.chain.deployment
    return {
        "object": "network",
        "chain_id": deployment.chain_id,
        "contracts": deployment.contracts,
        "block": deployment.block,
        "gateway": {
            "address": gateway.operator,
            "signer": gateway.keys.signer.address,
            "session_key": gateway.keys.session.address,
            "url": gateway.settings.public_url,
            "fee_bps": gateway.settings.fee_bps,
            "max_unacknowledged": gateway.settings.max_unacknowledged,
            "coarsest_prompt_format": gateway.settings.coarsest_prompt_format,
            "link": gateway.peer.model_dump(mode="json"),
        },
        "models": [model.name for model in gateway.catalog.listed()],
        "num_nodes_live": len(gateway.directory.live()),
    }
