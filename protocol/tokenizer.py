"""Text into token ids as the model's own tokenizer and chat template do it, and back, without torch or transformers.

Importing transformers' AutoTokenizer loads torch and costs seconds; `tokenizers` and the template do the same work.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from declai.ipfs.errors import InvalidManifest
from declai.protocol.chat_template import ChatTemplate, Clock
from declai.protocol.prompts import Conversation, PlainText, PlainTokens, PromptSource
from declai.protocol.text import OutputText

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
# The names by which templates know special tokens (transformers' special_tokens_map).
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ModelTokenizer:
    """The tokenizer and chat template in a folder of a model's tokenizer files."""

    def __init__(self, folder: Path, clock: Clock, *, eos_token_ids: Sequence[int] = ()) -> None:
        """`clock`: for the chat template. `eos_token_ids`: those that end an output, by the model's manifest.

        Raises InvalidManifest when the files are no fast tokenizer or the template does not compile.
        """
        self.tokens = _load_tokenizer(folder / "tokenizer.json")
        self._eos_token_ids = tuple(eos_token_ids)
        config = _load_config(folder / "tokenizer_config.json")
        special_tokens = {name: text for name in SPECIAL_TOKENS if (text := _token_text(config.get(name))) is not None}
        source = _template_source(folder / "chat_template.jinja", config)
        self.has_chat_template = source is not None
        self._template = ChatTemplate(source or PLAIN_TEMPLATE, special_tokens, clock)

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""
        size: int = self.tokens.get_vocab_size(with_added_tokens=True)
        return size

    def encode_prompt(self, prompt: PromptSource, at: datetime | None = None) -> list[int]:
        """Token ids of whatever prompt a body holds, read at a moment (default: now). Raises TemplateRefused."""
        match prompt:
            case Conversation():
                return self.encode_chat(prompt.messages, at)
            case PlainText():
                return self.encode(prompt.text)
            case PlainTokens():
                return list(prompt.token_ids)

    def encode(self, text: str) -> list[int]:
        """Token ids of a plain prompt, with the special tokens that the model expects around one."""
        ids: list[int] = self.tokens.encode(text, add_special_tokens=True).ids
        return ids

    def encode_chat(self, messages: Sequence[dict[str, Any]], at: datetime | None = None) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn; `at` is what a template is told of the time.

        Raises:
            TemplateRefused: the model's template refuses the conversation.
        """
        text = self.render_chat(messages, at)
        # A template writes its special tokens itself.
        ids: list[int] = self.tokens.encode(text, add_special_tokens=not self.has_chat_template).ids
        return ids

    def render_chat(self, messages: Sequence[dict[str, Any]], at: datetime | None = None) -> str:
        """The conversation as the model's template writes it. Raises TemplateRefused."""
        return self._template.render(messages, at)

    def token_text(self, token_id: int) -> str:
        """A token alone, as text; bytes that are no whole character come as replacement characters."""
        text: str = self.tokens.decode([token_id], skip_special_tokens=False)
        return text

    def output_text(self, stop_strings: Sequence[str], *, ignore_eos: bool) -> OutputText:
        """The text of one stream of output tokens, from its begin."""
        return OutputText(self.tokens, stop_strings, () if ignore_eos else self._eos_token_ids)


def _load_tokenizer(path: Path) -> Tokenizer:
    if not path.exists():
        raise InvalidManifest(f"the model has no tokenizer.json in {path.parent}: publish it with a fast tokenizer")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise InvalidManifest(f"{path} is no tokenizer.json: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _load_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InvalidManifest(f"{path} is no tokenizer_config.json: a JSON object is expected")
    return config


def _token_text(value: Any) -> str | None:
    """A special token in tokenizer_config.json: a text, or an object with its content."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _template_source(path: Path, config: dict[str, Any]) -> str | None:
    """The file of its own wins over the entry in the config; of several named templates the one called default."""
    if path.exists():
        return path.read_text(encoding="utf-8", errors="replace")
    source = config.get("chat_template")
    if isinstance(source, list):
        named = {item.get("name"): item.get("template") for item in source if isinstance(item, dict)}
        source = named.get("default")
    return source if isinstance(source, str) else None
