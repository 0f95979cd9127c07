"""`GET /v1/models` and `GET /v1/models/{name}`."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from declai.api.http.caller import gateway_of
from declai.api.serving.catalog import ListedModel

router = APIRouter(tags=["models"])


def _shape(model: ListedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.published_at,
        "owned_by": model.publisher,
        "manifest_cid": model.manifest_cid,
        "num_layers": model.num_layers,
    }


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """Every model with a version to serve; which nodes serve it now is in `GET /v1/nodes`."""
    return {"object": "list", "data": [_shape(model) for model in gateway_of(request).catalog.listed()]}


@router.get("/v1/models/{name:path}")
async def show_model(request: Request, name: str) -> dict[str, Any]:
    """One model with what its manifest says."""
    gateway = gateway_of(request)
    served = await asyncio.to_thread(gateway.catalog.get, name)
    manifest = served.manifest
    return _shape(served.listed) | {
        "context_length": manifest.context_length,
        "vocab_size": manifest.vocab_size,
        "dtype": manifest.dtype,
        "license": manifest.license,
        "has_chat_template": served.tokenizer.has_chat_template,
    }
