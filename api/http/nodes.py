"""`GET /v1/nodes`: who serves what now; `POST /v1/nodes/join`: a node asks for its broker account."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from declai.api.http.caller import gateway_of
from declai.protocol.joining import JoinAnswer, JoinRequest
from declai.protocol.wire import unpack_reports

router = APIRouter(tags=["nodes"])


@router.get("/v1/nodes")
async def list_nodes(request: Request) -> dict[str, Any]:
    """The live nodes with their offers. Prices: base units per million token-layers, as decimal strings."""
    gateway = gateway_of(request)
    names = {state_id: model.name for state_id, model in list(gateway.index.state.models.items())}
    rows = []
    for node in gateway.directory.live():
        beat, offer, worker = node.heartbeat, gateway.directory.offer(node), gateway.directory.worker(node.address)
        if offer is None or worker is None:
            continue
        rows.append(
            {
                "address": node.address,
                "model": names.get(beat.model),
                "manifest_cid": beat.manifest_cid,
                "layers": [max(offer.first_layer, beat.first_layer), min(offer.end_layer, beat.end_layer)],
                "prompt_price": str(offer.prompt_price),
                "output_price": str(offer.output_price),
                "numeric_profile": offer.numeric_profile,
                "region": worker.region,
                "endpoint": worker.endpoint,
                "stake": str(worker.stake),
                "live": True,
                "draining": beat.draining,
                "running": gateway.directory.num_running(node),
                "capacity": beat.capacity,
                "seconds_per_token_layer": beat.seconds_per_token_layer,
                "links": [
                    {"to": link.address, "rtt_ms": round(1000 * link.rtt_s, 3), "bytes_per_s": link.bytes_per_s}
                    for link in unpack_reports(beat.links)
                ],
            }
        )
    return {"object": "list", "data": rows}


@router.post("/v1/nodes/join")
async def join(request: Request, asked: JoinRequest) -> JoinAnswer:
    """A fresh account that can pop the node's own queue, for whoever holds the key of a staked node's signer."""
    return await gateway_of(request).joining.join(asked)
