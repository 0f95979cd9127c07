"""`POST /v1/completions`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from declai.api.http.answers import CompletionStyle
from declai.api.http.generation import generate
from declai.api.http.schemas import CompletionRequest

router = APIRouter(tags=["generation"])


@router.post("/v1/completions")
async def completions(request: Request, asked: CompletionRequest) -> Response:
    """What follows a prompt, as OpenAI's endpoint gives it."""
    return await generate(request, asked, CompletionStyle())
