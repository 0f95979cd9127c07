"""Requests in a gateway's store that nobody served."""

from __future__ import annotations

import secrets
import time

from declai.api.store.store import Store
from declai.chain.messages import InferenceRequest


def message_of(session: str, nonce: int, max_cost: int) -> InferenceRequest:
    return InferenceRequest(
        session=bytes.fromhex(session[2:]),
        nonce=nonce,
        model=bytes(32),
        body=bytes(32),
        max_tokens=1,
        tier=0,
        max_cost=max_cost,
        acked_below=0,
        spent=0,
        deadline=int(time.time()) + 600,
    )


def begin(store: Store, session: str, nonce: int, max_cost: int) -> str:
    request = f"0x{secrets.token_hex(32)}"
    store.begin_request(request, message_of(session, nonce, max_cost), bytes(65))
    return request


def finish(store: Store, request: str, cost: int) -> None:
    """A finished request whose whole cost is a fee: it needs no receipts."""
    store.finish_request(
        request, finish_reason="stop", num_prompt_tokens=1, num_output_tokens=1, fee=cost, stages_done=[]
    )
