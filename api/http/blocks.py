"""`GET /ipfs/{cid}`: raw blocks (IPFS trustless gateway), so that nodes can pull shards from here."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from declai.api.http.caller import gateway_of
from declai.ipfs.exchange import raw_block_response

router = APIRouter(tags=["blocks"])


@router.get("/ipfs/{cid}")
async def block(request: Request, cid: str) -> Response:
    """One raw block; whoever asks can hash it."""
    status, headers, body = await asyncio.to_thread(raw_block_response, gateway_of(request).blocks, cid)
    return Response(body, status_code=status, headers=headers)
