"""The prompt in a request's body: a conversation, a text, or token ids. Gateway and client read it by this one rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from declai.protocol.errors import InvalidPrompt
from declai.protocol.message import ProtocolMessage
from declai.protocol.options import TokenId
from declai.protocol.wire import MAX_TOKENS

MAX_TEXT_CHARS = 2**22

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
TokenIds = Annotated[list[TokenId], Field(max_length=MAX_TOKENS)]


class ContentPart(ProtocolMessage):
    type: Literal["text"]
    text: Text


class ChatMessage(ProtocolMessage):
    """OpenAI's message, as far as it can be asked here."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[ContentPart], Field(max_length=1024)] | None = None
    name: Annotated[str, Field(max_length=128)] | None = None
    refusal: None = None
    tool_calls: None = None
    audio: None = None
    annotations: list[Any] | None = None

    def plain(self) -> dict[str, str]:
        """The message as chat templates take it."""
        content = self.content
        text = "".join(part.text for part in content) if isinstance(content, list) else content or ""
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


# The bodies' fields, as they are sent.
Messages = Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
PromptField = (
    Text
    | Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS)]
    | Annotated[list[Text | TokenIds], Field(min_length=1)]
)


@dataclass(frozen=True)
class Conversation:
    """`messages` as chat templates take them: a role and a text each."""

    field: ClassVar[str] = "messages"
    messages: Sequence[dict[str, str]]


@dataclass(frozen=True)
class PlainText:
    field: ClassVar[str] = "prompt"
    text: str


@dataclass(frozen=True)
class PlainTokens:
    field: ClassVar[str] = "prompt"
    token_ids: Sequence[int]


# `field` names the body's field that it came in.
PromptSource: TypeAlias = Conversation | PlainText | PlainTokens


def conversation(messages: Sequence[ChatMessage]) -> Conversation:
    return Conversation([message.plain() for message in messages])


def plain_prompt(prompt: str | Sequence[int] | Sequence[str | list[int]]) -> PlainText | PlainTokens:
    """One prompt, as text or token ids, alone or in a list of one. Raises InvalidPrompt for several."""
    if isinstance(prompt, str):
        return PlainText(prompt)
    token_ids = [item for item in prompt if isinstance(item, int)]
    if token_ids:
        return PlainTokens(token_ids)
    if len(prompt) > 1:
        raise InvalidPrompt("one prompt a request: send several requests")
    (only,) = (item for item in prompt if not isinstance(item, int))
    return PlainText(only) if isinstance(only, str) else PlainTokens(only)


_MESSAGES: TypeAdapter[list[ChatMessage]] = TypeAdapter(Messages)
_PROMPT: TypeAdapter[str | list[int] | list[str | list[int]]] = TypeAdapter(PromptField)


def prompt_source(body: Mapping[str, Any]) -> PromptSource:
    """The prompt of a chat's or a plain completion's body. Raises InvalidPrompt when it has none of their form."""
    try:
        if "messages" in body:
            return conversation(_MESSAGES.validate_python(body["messages"]))
        return plain_prompt(_PROMPT.validate_python(body.get("prompt")))
    except ValidationError as error:
        raise InvalidPrompt(f"the body has no prompt that can be read: {error.errors()[0]['msg']}") from None
