"""Sign-in with a wallet (EIP-4361): `GET /v1/auth/nonce`, `POST /v1/auth/login`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from declai.api.http.caller import gateway_of
from declai.api.http.schemas import Schema
from declai.protocol.siwe import MAX_MESSAGE_CHARS

router = APIRouter(tags=["auth"])


class LoginRequest(Schema):
    """A signed EIP-4361 message whose resources name the session to spend."""

    message: Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE_CHARS)]
    signature: Annotated[str, Field(min_length=4, max_length=4200)]


@router.get("/v1/auth/nonce")
async def nonce(request: Request) -> dict[str, Any]:
    """A nonce for one sign-in, and what the message must name."""
    gateway = gateway_of(request)
    return {
        "nonce": await asyncio.to_thread(gateway.signin.new_nonce),
        "domain": gateway.settings.domain,
        "uri": gateway.settings.public_url,
        "chain_id": gateway.chain.deployment.chain_id,
        "session_key": gateway.keys.session.address,
    }


@router.post("/v1/auth/login")
async def login(request: Request, asked: LoginRequest) -> dict[str, Any]:
    """An API key bound to the session; it is shown this once."""
    found = await asyncio.to_thread(gateway_of(request).signin.login, asked.message, asked.signature)
    return {
        "api_key": found.api_key,
        "session": found.session,
        "payer": found.payer,
        "expires_at": int(found.expires_at),
    }
