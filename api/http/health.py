"""`GET /healthz` (the process answers), `GET /readyz` (all that it needs answers), `GET /metrics` (Prometheus)."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from declai.api.gateway import Gateway
from declai.api.http.caller import gateway_of

router = APIRouter(tags=["health"])
CHECK_TIMEOUT_S = 3.0


@router.get("/healthz")
async def healthz() -> PlainTextResponse:
    return PlainTextResponse("ok")


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """200 when chain, store and broker answer, else 503; which of them do is in the body."""
    gateway = gateway_of(request)
    checks = {
        "chain": asyncio.to_thread(gateway.chain.block_number),
        "store": asyncio.to_thread(gateway.store.request, "0x"),
        "broker": gateway.redis.ping(),
    }
    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(_answers(check)) for name, check in checks.items()}
    results = {name: task.result() for name, task in tasks.items()}
    return JSONResponse({"ready": all(results.values()), **results}, status_code=200 if all(results.values()) else 503)


async def _answers(check: object) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check  # type: ignore[misc]
    except Exception:  # whatever is wrong with it, it is not ready
        return False
    return True


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    gateway = gateway_of(request)
    gateway.metrics.nodes.set(len(gateway.directory.live()))
    gateway.metrics.frames_dropped.set(gateway.hub.num_dropped)
    gateway.metrics.frames_malformed.set(gateway.hub.num_malformed)
    _set_relay_metrics(gateway)
    gateway.metrics.chain_block.set(gateway.index.state.block)
    return Response(generate_latest(gateway.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _set_relay_metrics(gateway: Gateway) -> None:
    relay, metrics = gateway.hub.relay, gateway.metrics
    metrics.relay_bytes.set(relay.counts.num_bytes)
    metrics.relay_frames.set(relay.counts.num_frames)
    metrics.relay_refused.set(relay.counts.num_refused)
    metrics.relay_overflows.set(relay.counts.num_overflows)
    metrics.relay_waiting_bytes.set(relay.num_bytes_waiting)
