"""`GET /v1/receipts/{request}`: who did what for a request, signed; whoever has a request's hash may read it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fastapi import APIRouter, Request

from declai.api.errors import InvalidRequest, NotFound
from declai.api.http.caller import gateway_of
from declai.api.store.store import Store
from declai.chain.pricing import format_credits

router = APIRouter(tags=["receipts"])


@router.get("/v1/receipts/{request_hash}")
async def receipts(request: Request, request_hash: str) -> dict[str, Any]:
    """The signed request, and every stage's assignment and receipt. Amounts are base units as decimal strings."""
    if not re.fullmatch(r"0x[0-9a-f]{64}", request_hash):
        raise InvalidRequest("a request's hash is 0x and 64 lower-case hex digits", param="request")
    return await asyncio.to_thread(read_receipts, gateway_of(request).store, request_hash)


def read_receipts(store: Store, request_hash: str) -> dict[str, Any]:
    """What the store has of a request, as the route tells it. Raises NotFound."""
    found = store.request(request_hash)
    if found is None:
        raise NotFound(f"no request {request_hash} was served here", param="request")
    batch = store.batch(found.batch) if found.batch is not None else None
    return {
        "object": "receipts",
        "request": found.request,
        "state": found.state,
        "message": found.message.model_dump(mode="json"),
        "signature": "0x" + found.signature.hex(),
        "cost": str(found.cost),
        "cost_credits": format_credits(found.cost),
        "fee": str(found.fee),
        "finish_reason": found.finish_reason,
        "num_prompt_tokens": found.num_prompt_tokens,
        "num_output_tokens": found.num_output_tokens,
        "error": found.error,
        "batch": None if batch is None else {"state": batch.state, "root": "0x" + batch.root.hex(), "cid": batch.cid},
        "stages": [
            {
                "stage": stage.stage,
                "assignment": stage.assignment.model_dump(mode="json"),
                "assignment_signature": "0x" + stage.assignment_signature.hex(),
                **stage.receipt.model_dump(mode="json"),
            }
            for stage in store.request_stages(request_hash)
        ],
    }
