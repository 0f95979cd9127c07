"""Refuses bodies over the limit: by their Content-Length before anything is read, else as soon as too much has come."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from declai.api.errors import BodyTooLarge
from declai.api.http.errors import respond


class LimitBodies:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_large = BodyTooLarge(f"a body has at most {self._max_body_bytes} bytes here")
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self._max_body_bytes:
            await respond(too_large, {"Connection": "close"})(scope, receive, send)
            return
        num_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:
                raise too_large
            return message

        await self._app(scope, receive_bounded, send)
