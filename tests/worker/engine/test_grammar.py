"""Outputs held to a grammar: what may come next, where they may end, and draws that are the same in any company."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from declai.protocol import sampling
from declai.protocol.errors import InvalidGrammar
from declai.protocol.grammar import Constraint, GrammarCompiler
from declai.protocol.options import MAX_GRAMMAR_BYTES, Grammar, Sampling
from declai.protocol.sampling import sample
from declai.worker.engine import EngineLimits, SampledToken
from tests.support.pipelines import Pipeline, ids, prompt_of, spec
from tests.support.zoo import VOCAB_SIZE, Zoo

EOS = VOCAB_SIZE - 1
PERSON = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Alan"]}, "born": {"type": "integer", "minimum": 1800, "maximum": 1999}},
    "required": ["name", "born"],
    "additionalProperties": False,
}


def printable() -> Tokenizer:
    """One token for each printable ASCII character but the space, and special ones up to VOCAB_SIZE."""
    characters = [chr(code) for code in range(0x21, 0x7F)]
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(characters)}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([f"<{i}>" for i in range(len(characters), VOCAB_SIZE)])
    return tokenizer


TOKENIZER = printable()
COMPILER = GrammarCompiler(TOKENIZER, VOCAB_SIZE, [EOS])


def regex(pattern: str) -> Grammar:
    return Grammar(kind="regex", text=pattern)


def schema(value: object) -> Grammar:
    return Grammar(kind="json", text=json.dumps(value))


def allowed(constraint: Constraint) -> str:
    """The characters that may come next; "$" for the end."""
    found = np.flatnonzero(constraint.allowed)
    return "".join("$" if token_id == EOS else TOKENIZER.id_to_token(int(token_id)) for token_id in found)


def text_of(tokens: list[SampledToken]) -> str:
    return str(TOKENIZER.decode([token.token_id for token in tokens if token.token_id != EOS]))


def test_the_end_is_allowed_where_the_grammar_may_end_and_forced_where_it_must() -> None:
    constraint = COMPILER.constraint(regex("ab?[0-9]{0,2}"))
    assert allowed(constraint) == "a"
    constraint.accept(TOKENIZER.token_to_id("a"))
    assert allowed(constraint) == "0123456789b$"
    for character in "b1":
        assert constraint.ended is None
        constraint.accept(TOKENIZER.token_to_id(character))
    constraint.accept(TOKENIZER.token_to_id("2"))
    assert constraint.ended == "stop"


def test_the_end_token_ends() -> None:
    constraint = COMPILER.constraint(regex("a*"))
    constraint.accept(EOS)
    assert constraint.ended == "stop"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_outputs_are_in_the_grammar(zoo: Zoo, temperature: float) -> None:
    for seed in range(5):
        parameters = Sampling(temperature=temperature, seed=seed, top_k=5, presence_penalty=0.5)
        prompt = prompt_of(12, seed)
        options = {"eos_token_ids": (EOS,), "constraint": COMPILER.constraint(schema(PERSON))}
        tokens = Pipeline(zoo, "llama").generate(prompt, spec(prompt, 100, parameters, **options))
        person = json.loads(text_of(tokens))
        assert person.keys() == {"name", "born"}
        assert person["name"] in ("Ada", "Alan")
        assert 1800 <= person["born"] <= 1999
        assert tokens[-1].finish_reason == "stop"


def test_an_output_that_is_cut_says_so(zoo: Zoo) -> None:
    prompt = prompt_of(12)
    tokens = Pipeline(zoo, "llama").generate(
        prompt, spec(prompt, 6, constraint=COMPILER.constraint(regex("[a-z]{9}")), eos_token_ids=(EOS,))
    )
    assert re.fullmatch("[a-z]{6}", text_of(tokens))
    assert tokens[-1].finish_reason == "length"


def test_a_seed_gives_one_output_in_any_company(zoo: Zoo) -> None:
    limits = EngineLimits(8, 640, 1 << 24, prefill_chunk_tokens=48, mixed_prefill_tokens=20)
    grammars = [schema(PERSON), regex("[a-f]{3,20}"), None, schema({"type": "array", "items": {"type": "boolean"}})]
    together = Pipeline(zoo, "llama", limits=limits)
    for alone in (True, False):
        for number in range(8):
            prompt = prompt_of(5 + 9 * number, number)
            grammar = grammars[number % len(grammars)]
            asked = spec(
                prompt,
                30,
                Sampling(temperature=1.5, seed=number),
                eos_token_ids=(EOS,),
                constraint=COMPILER.constraint(grammar) if grammar is not None else None,
            )
            if alone:
                expected = Pipeline(zoo, "llama").generate(prompt, asked)
                together.tokens.setdefault(b"expected%d" % number, expected)
            else:
                together.start(bytes([number]), prompt, asked)
                together.step()
    together.run()
    for number in range(8):
        assert ids(together.tokens[bytes([number])]) == ids(together.tokens[b"expected%d" % number])


def test_log_probabilities_are_those_without_the_grammar(zoo: Zoo) -> None:
    prompt = prompt_of(12)
    options = {"logprobs": True, "top_logprobs": 5, "constraint": COMPILER.constraint(regex("zzzz"))}
    tokens = Pipeline(zoo, "llama").generate(prompt, spec(prompt, 6, **options))
    assert text_of(tokens) == "zzzz"
    assert any(token.logprob < token.top_logprobs[-1][1] for token in tokens if token.logprob is not None)


def test_an_endless_wait_of_all_that_may_come_draws_the_likeliest(monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens once in 2**25 draws to a lone token, and no forbidden one may take its place."""
    monkeypatch.setattr(sampling, "_standard_exponentials", lambda *_: np.full(4, np.inf, np.float32))
    logits = np.array([-np.inf, -np.inf, 3, -np.inf], np.float32)
    for parameters in (Sampling(), Sampling(top_k=2), Sampling(min_p=0.1)):
        assert sample(logits, parameters, 0) == 2


@pytest.mark.parametrize(
    "grammar",
    [
        regex("(?=a)b"),
        regex("("),
        regex("[^\\s\\S]"),
        regex("(" * 5000 + "a" + ")" * 5000),
        schema({"type": "wat"}),
        schema({"type": "array", "uniqueItems": True}),
        schema({"type": "integer", "minimum": 5, "maximum": 3}),
        schema({"$ref": "http://127.0.0.1/schema.json"}),
        schema({"$ref": "file:///etc/hostname"}),
        schema([1]),
        Grammar(kind="json", text="{"),
        Grammar(kind="json", text='{"items":' * 2000 + "{}" + "}" * 2000),
    ],
    ids=lambda grammar: grammar.text[:30],
)
def test_grammars_that_cannot_be_kept_are_refused_soon(grammar: Grammar) -> None:
    began = time.process_time()
    with pytest.raises(InvalidGrammar):
        COMPILER.constraint(grammar)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "grammar",
    [
        regex("((a{100}){100}){100}"),
        regex("[xyz]{3}((a{100}){100}){100}"),
    ],
    ids=["at once", "later"],
)
def test_a_grammar_that_grows_too_complex_cuts_the_output(grammar: Grammar) -> None:
    constraint = COMPILER.constraint(grammar)
    for _ in range(400):
        began = time.process_time()
        constraint.accept(int(constraint.allowed.argmax()))
        assert time.process_time() - began < 0.5
        if constraint.ended is not None:
            break
    assert constraint.ended == "length"


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_pattern_is_compiled_or_refused(pattern: str) -> None:
    try:
        constraint = COMPILER.constraint(regex(pattern))
    except InvalidGrammar:
        return
    assert constraint.allowed.any()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["object", "string", "array", "a", "^a*$"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "enum", "anyOf", "pattern", "minItems", "$ref", "x-guidance"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
@settings(deadline=None)
def test_any_schema_is_compiled_or_refused(value: object) -> None:
    try:
        constraint = COMPILER.constraint(schema(value))
    except InvalidGrammar:
        return
    assert constraint.allowed.any()


def test_a_grammar_is_part_of_what_is_committed_to() -> None:
    plain, constrained = Sampling(seed=1), Sampling(seed=1, grammar=regex("a"))
    assert b"grammar" not in plain.canonical()
    assert b'"grammar":{"kind":"regex","text":"a"}' in constrained.canonical()
    assert Sampling.model_validate_json(constrained.model_dump_json()) == constrained


def test_a_grammar_is_bounded_in_bytes() -> None:
    Grammar(kind="regex", text="a" * MAX_GRAMMAR_BYTES)
    for text in ("a" * (MAX_GRAMMAR_BYTES + 1), "é" * (MAX_GRAMMAR_BYTES // 2 + 1), "\ud800"):
        with pytest.raises(ValueError, match=r"Grammar"):
            Grammar(kind="regex", text=text)
