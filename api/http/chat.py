"""`POST /v1/chat/completions`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from declai.api.http.answers import ChatStyle
from declai.api.http.generation import generate
from declai.api.http.schemas import ChatRequest

router = APIRouter(tags=["generation"])


@router.post("/v1/chat/completions")
async def chat_completions(request: Request, asked: ChatRequest) -> Response:
    """An answer to a conversation, as OpenAI's endpoint gives it; the model's own chat template makes the prompt."""
    return await generate(request, asked, ChatStyle())
