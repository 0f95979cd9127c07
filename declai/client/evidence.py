"""What a requester saw of an answer: the facts against which receipts are checked before they are acknowledged."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from declai.client.types import TokenLogprob, Usage


@dataclass
class Evidence:
    """Collected from one answer, whole or chunk by chunk. `complete` once the answer's end was seen.

    `asked_at` is before the request was sent, by this machine's clock; `created` is the gateway's word. Unix seconds.
    """

    request: str | None = None
    model: str | None = None
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    created: int | None = None
    asked_at: float = field(default_factory=time.time)

    @property
    def complete(self) -> bool:
        return self.finish_reason is not None

    def see(self, payload: dict[str, Any]) -> str:
        """Take in one chunk or one whole answer (chat or plain completion); returns the text that it adds."""
        added = ""
        self.model = payload.get("model") or self.model
        created = payload.get("created")
        self.created = created if type(created) is int else self.created
        if payload.get("prompt_token_ids") is not None:
            self.prompt_token_ids = list(payload["prompt_token_ids"])
        for choice in payload.get("choices", ()):
            part = choice.get("delta") or choice.get("message") or {}
            added += choice.get("text") or part.get("content") or ""
            self.token_ids.extend(choice.get("token_ids") or ())
            scored = (choice.get("logprobs") or {}).get("content") or ()
            self.logprobs.extend(TokenLogprob.model_validate(item) for item in scored)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if payload.get("usage"):
            self.usage = Usage.model_validate(payload["usage"])
        self.text += added
        return added
