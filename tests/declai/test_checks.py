"""What a payer holds an answer to before acknowledging it: an honest one passes, whatever model and options."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from declai.client.checks import check_tokens
from declai.client.evidence import Evidence
from declai.errors import ReceiptError
from declai.protocol.chat_template import Clock
from declai.protocol.tokenizer import ModelTokenizer

END = "<turn_end>"
CLOCK = Clock(time.monotonic, datetime.now)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    """Of a model whose end-of-sequence token is an added one that is not flagged special, as some models have it."""
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokens.train_from_iterator(["the fox jumps over"] * 4, trainers.BpeTrainer(initial_alphabet=alphabet))
    tokens.add_tokens([AddedToken(END, special=False)])
    folder = tmp_path_factory.mktemp("tokenizer")
    tokens.save(str(folder / "tokenizer.json"))
    return ModelTokenizer(folder, CLOCK, eos_token_ids=[tokens.token_to_id(END)])


def evidence(tokenizer: ModelTokenizer, output: str, shown: str, prompt: str = "say it") -> Evidence:
    """A whole answer: the text that the tokens spell, and the text that came."""
    return Evidence(
        prompt_token_ids=tokenizer.encode(prompt),
        token_ids=tokenizer.tokens.encode(output, add_special_tokens=False).ids,
        text=shown,
        finish_reason="stop",
    )


@pytest.mark.parametrize(
    ("options", "output", "shown"),
    [
        ({}, f"the fox{END}", "the fox"),
        ({}, "the fox 世", "the fox 世"),
        ({"ignore_eos": True}, f"the fox{END} jumps", f"the fox{END} jumps"),
        ({"stop": "ju"}, "the fox jumps", "the fox "),
        ({"stop": ["jumpy", "nowhere"]}, f"the fox jump{END}", "the fox jump"),
        ({"stop": None}, "the fox", "the fox"),
        # A gateway may hear of an end too late to keep the stages from going on: what they made is paid, not shown.
        ({"stop": ["fox"]}, "the fox jumps over", "the "),
    ],
)
def test_an_honest_answer_is_not_disputed(
    tokenizer: ModelTokenizer, options: dict[str, Any], output: str, shown: str
) -> None:
    check_tokens(evidence(tokenizer, output, shown), {"prompt": "say it"} | options, tokenizer)


def test_other_tokens_than_the_text_are_disputed(tokenizer: ModelTokenizer) -> None:
    with pytest.raises(ReceiptError, match="not the text"):
        check_tokens(evidence(tokenizer, "the fox jumps", "the fox"), {"prompt": "say it"}, tokenizer)


def test_more_prompt_tokens_than_the_prompt_has_are_disputed(tokenizer: ModelTokenizer) -> None:
    with pytest.raises(ReceiptError, match="prompt tokens"):
        check_tokens(evidence(tokenizer, "fox", "fox", "say it twice"), {"prompt": "say it"}, tokenizer)


@pytest.mark.parametrize(
    ("body", "read_as"),
    [
        ({"messages": [{"role": "user", "content": "the fox"}]}, "user: the fox\nassistant:"),
        (
            {"messages": [{"role": "developer", "content": "brief"}, {"role": "user", "content": None, "name": "me"}]},
            "system: brief\nuser: \nassistant:",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": t} for t in ("the ", "fox")]}]},
            "user: the fox\nassistant:",
        ),
        ({"prompt": ["the fox"]}, "the fox"),
    ],
)
def test_a_prompt_is_read_as_the_gateway_reads_it(
    tokenizer: ModelTokenizer, body: dict[str, Any], read_as: str
) -> None:
    check_tokens(evidence(tokenizer, "fox", "fox", read_as), body, tokenizer)


@pytest.mark.parametrize("prompt", [[5, 6, 7], [[5, 6, 7]]])
def test_a_prompt_may_be_token_ids(tokenizer: ModelTokenizer, prompt: list[Any]) -> None:
    seen = evidence(tokenizer, "fox", "fox")
    seen.prompt_token_ids = [5, 6, 7]
    check_tokens(seen, {"prompt": prompt}, tokenizer)


@pytest.mark.parametrize("body", [{}, {"prompt": ["a", "b"]}, {"messages": [{"role": "oracle", "content": "x"}]}])
def test_what_is_charged_for_no_prompt_is_disputed(tokenizer: ModelTokenizer, body: dict[str, Any]) -> None:
    with pytest.raises(ReceiptError, match="cannot be read"):
        check_tokens(evidence(tokenizer, "fox", "fox"), body, tokenizer)


@pytest.fixture
def dated(tokenizer: ModelTokenizer, tmp_path: Path) -> Path:
    """The tokenizer's folder with a template that tells the time."""
    tokenizer.tokens.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text("{{ strftime_now('%d %b %H:%M:%S') }} {{ messages[0].content }}")
    return tmp_path


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine is in another time zone than the gateway."""
    monkeypatch.setenv("TZ", "XYZ-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


MIDNIGHT = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp())


def dated_answer(folder: Path, read_at: float, created: int, asked_at: float) -> Evidence:
    """An answer of a gateway that read the prompt at `read_at`."""
    gateway = ModelTokenizer(folder, Clock(time.monotonic, lambda: datetime.fromtimestamp(read_at, UTC)))
    seen = Evidence(prompt_token_ids=gateway.encode_chat(DATED["messages"]), finish_reason="stop", asked_at=asked_at)
    seen.see({"created": created})
    return seen


DATED = {"messages": [{"role": "user", "content": "the fox"}]}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("read_at", "created"), [(MIDNIGHT + 5.5, MIDNIGHT + 5), (MIDNIGHT - 0.5, MIDNIGHT + 1)])
def test_a_prompt_with_the_time_is_read_in_utc_as_of_when_it_was_asked(
    dated: Path, read_at: float, created: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer = ModelTokenizer(dated, CLOCK)
    monkeypatch.setattr(time, "time", lambda: MIDNIGHT + 90.0)
    check_tokens(dated_answer(dated, read_at, created, MIDNIGHT - 1.0), DATED, payer)


def test_a_gateway_cannot_choose_the_time_that_a_prompt_tells(dated: Path) -> None:
    now = time.time()
    with pytest.raises(ReceiptError, match="prompt tokens"):
        check_tokens(dated_answer(dated, MIDNIGHT, MIDNIGHT, now), DATED, ModelTokenizer(dated, CLOCK))


@pytest.mark.usefixtures("elsewhere")
def test_a_template_is_told_the_time_in_utc(dated: Path) -> None:
    for zone in (UTC, timezone(timedelta(hours=-5))):
        clock = Clock(time.monotonic, partial(datetime.fromtimestamp, MIDNIGHT, zone))
        assert ModelTokenizer(dated, clock).render_chat(DATED["messages"]) == "01 Jan 00:00:00 the fox"
