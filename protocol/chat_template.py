"""A model's chat template, rendered. Templates are strangers' programs: sandboxed, and bounded in size and time.

The environment is the one transformers documents for chat templates
(https://huggingface.co/docs/transformers/chat_templating_writing): jinja2's immutable sandbox, trimmed blocks, `break`
and `continue`, `{% generation %}` blocks, and the names raise_exception, strftime_now, dict, namespace, tojson.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from declai.ipfs.errors import InvalidManifest
from declai.protocol.errors import TemplateRefused

MAX_RENDERED_CHARS = 4 * 2**20
MAX_RENDER_S = 2.0


@dataclass(frozen=True)
class Clock:
    """The time as templates need it: `monotonic` bounds them, `now` is what they may ask for (`strftime_now`).

    In seconds from any moment, and as a date and time of any zone: templates are told it in UTC, because gateway and
    payer must read a prompt alike wherever they are.
    """

    monotonic: Callable[[], float]
    now: Callable[[], datetime]


class ChatTemplate:
    """A compiled template. Thread-safe."""

    def __init__(self, source: str, special_tokens: dict[str, str], clock: Clock) -> None:
        """`special_tokens`: texts by name (`bos_token`, ...). Raises InvalidManifest when `source` does not compile."""
        self._special_tokens = special_tokens
        self._clock = clock
        try:
            self._template = _environment().from_string(source)
        except (TemplateSyntaxError, RecursionError) as error:
            raise InvalidManifest(f"the model's chat template does not compile: {error}") from None

    def render(self, messages: Sequence[dict[str, Any]], at: datetime | None = None) -> str:
        """The conversation, ready for the assistant's turn. Blocking: at most about MAX_RENDER_S.

        `at`: as it was then; the default is now.

        Raises:
            TemplateRefused: the template refuses the conversation, fails, or does not come to an end.
        """
        variables = {
            "messages": list(messages),
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
            "strftime_now": (at or self._clock.now()).astimezone(UTC).strftime,
            **self._special_tokens,
        }
        parts: list[str] = []
        num_chars, deadline = 0, self._clock.monotonic() + MAX_RENDER_S
        try:
            for part in self._template.generate(variables):
                parts.append(part)
                num_chars += len(part)
                if num_chars > MAX_RENDERED_CHARS or self._clock.monotonic() > deadline:
                    raise SecurityError("the rendered conversation is too long")
        except TemplateError as error:
            raise TemplateRefused(f"the model's chat template refuses this: {error}") from None
        except Exception as error:  # a stranger's program may fail in any way
            kind = type(error).__name__
            raise TemplateRefused(f"the model's chat template failed ({kind})") from None
        return "".join(parts)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Also watches the operators by which a few characters of template could fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("chat templates have no use for powers")
        if any(not isinstance(side, int | float) for side in (left, right)):
            size = max((len(side) for side in (left, right) if hasattr(side, "__len__")), default=1)
            count = max((side for side in (left, right) if isinstance(side, int)), default=1)
            if size * count > MAX_RENDERED_CHARS:
                raise SecurityError("a repetition is too long")
        return super().call_binop(context, operator, left, right)


class _GenerationBlocks(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; here it is shown as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own attribute

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _TemplateNamespace(Namespace):
    """jinja2's namespace without names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a chat template may not set {name!r}")
        super().__setitem__(name, value)


def _environment() -> _Sandbox:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlocks, loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["dict"] = lambda *args, **values: dict(*args, **values)
    environment.globals["namespace"] = _TemplateNamespace
    return environment


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes characters of HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
