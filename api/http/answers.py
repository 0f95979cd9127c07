"""The shapes of answers: OpenAI's objects around our pieces of text, whole or as the events of a stream."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from declai.api.serving.intake import Begun
from declai.api.serving.running import End, Piece
from declai.protocol.tokenizer import ModelTokenizer
from declai.protocol.usage import ChoiceUsage, usage_of
from declai.protocol.wire import Token

DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    """One server-sent event. ASCII alone: some clients also split lines at U+2028 and its like."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def usage(ends: Collection[End]) -> dict[str, Any]:
    """What an answer's choices came to."""
    return usage_of([ChoiceUsage(end.num_prompt_tokens, end.num_output_tokens, end.cost) for end in ends])


def finish_word(end: End) -> str:
    """OpenAI's word for how it ended; a cancelled answer is cut like one that ran out of tokens."""
    return end.finish_reason if end.finish_reason in ("stop", "length") else "length"


class Style(Protocol):
    """What differs between chat and plain completions."""

    id_prefix: str
    object: str
    chunk_object: str

    def part(self, text: str, first: bool) -> dict[str, Any]:
        """The text of a chunk, as members of its choice."""

    def end(self) -> dict[str, Any]:
        """The same for the chunk with the finish reason."""

    def whole(self, text: str) -> dict[str, Any]:
        """The same for a whole answer."""

    def logprobs(self, tokens: Sequence[Token], tokenizer: ModelTokenizer) -> dict[str, Any]:
        """The log probabilities of tokens."""


class ChatStyle:
    id_prefix, object, chunk_object = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def part(self, text: str, first: bool) -> dict[str, Any]:
        return {"delta": ({"role": "assistant"} if first else {}) | {"content": text}}

    def end(self) -> dict[str, Any]:
        return {"delta": {}}

    def whole(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def logprobs(self, tokens: Sequence[Token], tokenizer: ModelTokenizer) -> dict[str, Any]:
        def shown(token_id: int, value: float | None) -> dict[str, Any]:
            text = tokenizer.token_text(token_id)
            return {"token": text, "logprob": value, "bytes": list(text.encode())}

        content = [
            shown(token.token_id, token.logprob) | {"top_logprobs": [shown(*item) for item in token.top_logprobs]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}


class CompletionStyle:
    id_prefix, object, chunk_object = "cmpl-", "text_completion", "text_completion"

    def part(self, text: str, first: bool) -> dict[str, Any]:
        return {"text": text}

    def end(self) -> dict[str, Any]:
        return {"text": ""}

    def whole(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def logprobs(self, tokens: Sequence[Token], tokenizer: ModelTokenizer) -> dict[str, Any]:
        texts = [tokenizer.token_text(token.token_id) for token in tokens]
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [_likely(token, tokenizer) for token in tokens]
            if any(token.top_logprobs for token in tokens)
            else None,
            "text_offset": [sum(map(len, texts[:i])) for i in range(len(texts))],
        }


def _likely(token: Token, tokenizer: ModelTokenizer) -> dict[str, float]:
    """The most likely tokens by their text, and the chosen one. Of tokens with the same text the likelier is shown."""
    shown: dict[str, float] = {}
    for token_id, value in (*token.top_logprobs, (token.token_id, token.logprob)):
        if value is not None:
            shown.setdefault(tokenizer.token_text(token_id), value)
    return shown


@dataclass
class _Choice:
    """One choice so far. Tokens whose text is not certain yet wait for the next text."""

    waiting: list[Piece] = field(default_factory=list)
    is_first: bool = True


class AnswerShape:
    """Shapes one answer of one or several choices."""

    def __init__(self, style: Style, begun: Sequence[Begun], *, return_token_ids: bool, wants_usage: bool) -> None:
        generation = begun[0].generation
        self._style = style
        self._tokenizer = generation.model.tokenizer
        self._shows_token_ids = return_token_ids
        # To be shown once: with the whole answer, or with a stream's first chunk.
        self._prompt = {"prompt_token_ids": list(generation.prompt_token_ids)} if return_token_ids else {}
        self._wants_logprobs = generation.options.logprobs
        self.wants_usage = wants_usage
        self._head = {
            "id": style.id_prefix + begun[0].admitted.request[2:34],
            "created": int(time.time()),
            "model": generation.model.name,
            "system_fingerprint": "fp_" + generation.model.manifest_cid[-16:],
        }
        self._choices = [_Choice() for _ in begun]

    def chunk(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """The event of a piece, or None when it waits for its text."""
        choice = self._choices[index]
        choice.waiting.append(piece)
        if not piece.text:
            return None
        return self._chunk(index, self._style.part(piece.text, choice.is_first), None)

    def end_chunk(self, index: int, end: End) -> dict[str, Any]:
        """The event with a choice's finish reason."""
        return self._chunk(index, self._style.end(), finish_word(end))

    def usage_chunk(self, ends: Collection[End]) -> dict[str, Any]:
        """The event with the usage, which has no choices."""
        return self._head | {"object": self._style.chunk_object, "choices": [], "usage": usage(ends)}

    def whole(self, pieces: Sequence[Sequence[Piece]], ends: Sequence[End]) -> dict[str, Any]:
        """The answer to a request that is not streamed, from each choice's pieces and end."""
        choices = [
            self._choice(index, self._style.whole("".join(piece.text for piece in made)), made, finish_word(end))
            for index, (made, end) in enumerate(zip(pieces, ends, strict=True))
        ]
        return self._head | {"object": self._style.object, "choices": choices, "usage": usage(ends)} | self._prompt

    def _chunk(self, index: int, members: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        choice = self._choice(index, members, self._choices[index].waiting, finish_reason)
        body = self._head | {"object": self._style.chunk_object, "choices": [choice]}
        if self.wants_usage:
            body["usage"] = None
        body |= self._prompt
        self._choices[index], self._prompt = _Choice(is_first=False), {}
        return body

    def _choice(
        self, index: int, members: dict[str, Any], pieces: Sequence[Piece], finish_reason: str | None
    ) -> dict[str, Any]:
        tokens = [token for piece in pieces for token in piece.tokens]
        scored = [token for token in tokens if token.logprob is not None]
        logprobs = self._style.logprobs(scored, self._tokenizer) if self._wants_logprobs else None
        choice = {"index": index} | members | {"finish_reason": finish_reason, "logprobs": logprobs}
        return choice | ({"token_ids": [token.token_id for token in tokens]} if self._shows_token_ids else {})
