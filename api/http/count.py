"""Counts HTTP responses by route and status, outside of everything else."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from declai.api.gateway import Gateway

METHODS = {"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"}


class CountResponses:
    """ASGI middleware. Paths and methods that are not ours count as one, or strangers could fill the memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                gateway: Gateway | None = getattr(scope["app"].state, "gateway", None)
                if gateway is not None:
                    route = getattr(scope.get("route"), "path", "other")
                    method = scope["method"] if scope["method"] in METHODS and route != "other" else "other"
                    labels = (method, route, str(message["status"]))
                    gateway.metrics.http_responses.labels(*labels).inc()
            await send(message)

        await self._app(scope, receive, count)
