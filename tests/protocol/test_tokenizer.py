"""Token ids of prompts and conversations are those that transformers gives for the same files."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from declai.ipfs.errors import InvalidManifest
from declai.protocol.chat_template import Clock
from declai.protocol.errors import TemplateRefused
from declai.protocol.tokenizer import ModelTokenizer
from tests.support.tokenizers import byte_level, sentence_piece

CLOCK = Clock(time.monotonic, datetime.now)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>'"
    " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set rest = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}{{ bos_token }}{% for m in rest %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ system if loop.first }}{{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
FEATURES = """\
{%- set ns = namespace(count=0) -%}
{%- for message in messages %}
    {%- if message.role == 'skip' %}{% continue %}{% endif %}
    {%- set ns.count = ns.count + 1 %}
    {% generation %}{{ message | tojson(indent=2) }}{% endgeneration %}
    {{ dict(a=message.content) | tojson(sort_keys=true, separators=(',', ':')) }}
{%- endfor %}
{{ ns.count }} {{ strftime_now('%Y') }} {{ tools is none }} {{ documents is none }} {{ unk_token }}
"""
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "hello"}],
    [{"role": "system", "content": "Be <b>brief</b>."}, {"role": "user", "content": "  Grüße, 世界! 🙂 \n"}],
    [
        {"role": "user", "content": "the fox"},
        {"role": "assistant", "content": "jumps </s> over"},
        {"role": "user", "content": "<|im_end|> why?"},
    ],
]


def save(folder: Path, tokenizer: Tokenizer, template: str | list[dict[str, str]] | None, file: bool = False) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "special": True, "__type": "AddedToken"},
        "unk_token": "<unk>",
        "pad_token": None,
        "add_bos_token": True,
        "model_max_length": 512,
    }
    if template is not None and not file:
        config["chat_template"] = template
    if file:
        (folder / "chat_template.jinja").write_text(str(template))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
@pytest.mark.parametrize("template", [CHATML, LLAMA, FEATURES], ids=["chatml", "llama", "features"])
@pytest.mark.parametrize("file", [False, True], ids=["in-config", "own-file"])
def test_conversations_as_transformers(tmp_path: Path, make: Any, template: str, file: bool) -> None:
    from transformers import AutoTokenizer

    folder = save(tmp_path, make(), template, file)
    ours, theirs = ModelTokenizer(folder, CLOCK), AutoTokenizer.from_pretrained(folder)
    for messages in CONVERSATIONS:
        assert ours.render_chat(messages) == theirs.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ours.encode_chat(messages) == ids


def test_a_template_may_refuse(tmp_path: Path) -> None:
    tokenizer = ModelTokenizer(save(tmp_path, byte_level(), LLAMA), CLOCK)
    with pytest.raises(TemplateRefused, match="roles must alternate"):
        tokenizer.encode_chat([CONVERSATIONS[0][0], CONVERSATIONS[0][0]])


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_plain_prompts_as_transformers(tmp_path: Path, make: Any) -> None:
    from transformers import AutoTokenizer

    folder = save(tmp_path, make(), None)
    ours, theirs = ModelTokenizer(folder, CLOCK), AutoTokenizer.from_pretrained(folder)
    for text in ["", "hello world", " two  spaces ", "Grüße, 世界! 🙂", "<s>already</s>", "a\r\nb\0c"]:
        assert ours.encode(text) == theirs(text)["input_ids"]


def test_a_model_without_a_template_gets_a_plain_one(tmp_path: Path) -> None:
    tokenizer = ModelTokenizer(save(tmp_path, sentence_piece(), None), CLOCK)
    assert tokenizer.render_chat(CONVERSATIONS[0]) == "user: hello\nassistant:"
    assert tokenizer.encode_chat(CONVERSATIONS[0]) == tokenizer.encode("user: hello\nassistant:")


def test_the_default_of_several_templates(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes {{ messages|length }}"}]
    assert ModelTokenizer(save(tmp_path, byte_level(), named), CLOCK).render_chat(CONVERSATIONS[2]) == "yes 3"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
        "{{ missing.attribute }}",
        "{{ 1 / 0 }}",
        "{{ 'x' * 10 ** 9 }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ messages[0].content }}{% endfor %}{% endfor %}",
        "{% for a in range(999) %}{{ 'x' * 99999 }}{% endfor %}",
    ],
)
def test_a_hostile_template_is_refused_and_bounded(tmp_path: Path, template: str) -> None:
    tokenizer = ModelTokenizer(save(tmp_path, byte_level(), template), CLOCK)
    with pytest.raises(TemplateRefused):
        tokenizer.encode_chat(CONVERSATIONS[0])


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match=r"tokenizer\.json"):
        ModelTokenizer(tmp_path, CLOCK)
    save(tmp_path, byte_level(), "{% if %}")
    with pytest.raises(InvalidManifest, match="template"):
        ModelTokenizer(tmp_path, CLOCK)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(InvalidManifest, match="tokenizer_config"):
        ModelTokenizer(tmp_path, CLOCK)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidManifest, match=r"tokenizer\.json"):
        ModelTokenizer(tmp_path, CLOCK)


def test_a_template_is_told_the_time_of_the_clock_that_it_is_given(tmp_path: Path) -> None:
    clock = Clock(time.monotonic, lambda: datetime(1999, 7, 15, tzinfo=UTC))
    tokenizer = ModelTokenizer(save(tmp_path, byte_level(), "{{ strftime_now('%b %Y') }}"), clock)
    assert tokenizer.render_chat(CONVERSATIONS[0]) == "Jul 1999"


def test_a_template_that_takes_too_long_by_its_clock_is_refused(tmp_path: Path) -> None:
    seconds = iter(range(0, 100, 3))
    clock = Clock(lambda: float(next(seconds)), datetime.now)
    tokenizer = ModelTokenizer(save(tmp_path, byte_level(), "{{ messages|length }}"), clock)
    with pytest.raises(TemplateRefused, match="too long"):
        tokenizer.render_chat(CONVERSATIONS[0])
