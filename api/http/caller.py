"""Who asks: an API key, or a request signed by a session key."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request

from declai.api.auth.signed import read_header
from declai.api.errors import AuthenticationFailed
from declai.api.gateway import Gateway
from declai.protocol.signed_requests import SCHEME, SignedHeader

MAX_KEY_CHARS = 256


def gateway_of(request: Request) -> Gateway:
    """The running gateway behind a request."""
    gateway: Gateway = request.app.state.gateway
    return gateway


async def payer_of(request: Request) -> SignedHeader | str:
    """The signed header, or the session that an API key spends.

    Raises:
        AuthenticationFailed: neither is there, or it does not hold.
    """
    authorization = request.headers.get("authorization", "")
    if authorization.startswith(SCHEME):
        return read_header(authorization)
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip() or len(token) > MAX_KEY_CHARS:
        raise AuthenticationFailed(
            "send `Authorization: Bearer dcl_...` (get a key with `declai session login`) or a signed request"
        )
    return await asyncio.to_thread(gateway_of(request).signin.session_of, token.strip())


async def body_of(request: Request) -> dict[str, Any]:
    """The body as it was sent, for what is signed is the body and not what a schema made of it.

    It was parsed once, for the schema, and kept with the request.
    """
    body: dict[str, Any] = await request.json()
    return body
