"""Bounds of an engine, and input from strangers: a typed error each, and no other sequence notices."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from declai.protocol.options import GenerationOptions, Sampling
from declai.worker.engine import (
    AtCapacity,
    Engine,
    EngineError,
    EngineLimits,
    ForwardFailed,
    HiddenRows,
    InvalidInput,
    InvalidSequence,
    PositionMismatch,
    SampledToken,
    SequenceFailed,
    SequenceSpec,
    UnknownSequence,
)
from declai.worker.engine.turns.step import Chunk
from tests.support.pipelines import GREEDY, LIMITS, Pipeline, engine_of, hidden, ids, spec
from tests.support.zoo import NUM_LAYERS, VOCAB_SIZE, Zoo

OPTIONS = GenerationOptions(sampling=GREEDY)
PENALISED = GenerationOptions(sampling=Sampling(repetition_penalty=1.1))

ROW = 32 * 4


@pytest.fixture
def first(zoo: Zoo) -> Engine:
    return engine_of(zoo, 0, 2)


@pytest.fixture
def middle(zoo: Zoo) -> Engine:
    return engine_of(zoo, 2, 4)


@pytest.fixture
def last(zoo: Zoo) -> Engine:
    return engine_of(zoo, 4, NUM_LAYERS)


def test_sequences_are_counted(zoo: Zoo) -> None:
    engine = engine_of(zoo, 0, 2, replace(LIMITS, max_sequences=2))
    engine.add(b"a", SequenceSpec(1, 1))
    engine.add(b"b", SequenceSpec(1, 1))
    with pytest.raises(AtCapacity, match="sequences"):
        engine.add(b"c", SequenceSpec(1, 1))
    engine.remove(b"a")
    engine.add(b"c", SequenceSpec(1, 1))
    assert b"c" in engine
    assert b"a" not in engine


def test_memory_is_reserved_for_the_longest_a_sequence_can_get(zoo: Zoo) -> None:
    engine = engine_of(zoo, 2, 4)
    engine.add(b"a", SequenceSpec(10, 91))
    bytes_per_token = 2 * (2 * 2 * 8) * 4  # keys and values of two layers
    assert engine.used_cache_bytes == 112 * bytes_per_token + 10 * ROW  # 100 positions in blocks of 16
    tight = engine_of(zoo, 2, 4, replace(LIMITS, max_cache_bytes=engine.used_cache_bytes))
    tight.add(b"a", SequenceSpec(10, 91))
    with pytest.raises(AtCapacity, match="bytes"):
        tight.add(b"b", SequenceSpec(1, 1))
    tight.remove(b"a")
    assert tight.used_cache_bytes == 0
    with pytest.raises(AtCapacity):
        tight.add(b"b", SequenceSpec(10, 104))
    tight.check_integrity()


def test_as_many_sequences_fit_as_the_arithmetic_says(zoo: Zoo) -> None:
    bytes_per_token = 2 * (2 * 2 * 8) * 4
    each = 608 * bytes_per_token + 100 * ROW  # 600 positions in blocks of 16, and the prompt in the inbox
    engine = engine_of(zoo, 2, 4, EngineLimits(100, 640, 24 * each))
    for number in range(24):
        engine.add(bytes([number]), SequenceSpec(100, 501))
    with pytest.raises(AtCapacity):
        engine.add(b"one more", SequenceSpec(100, 501))
    for number in range(24):
        engine.feed(bytes([number]), 0, hidden(rows=100).tobytes())
    while engine.has_work:
        assert all(isinstance(output, HiddenRows) for output in engine.step())
    held = engine._runner._pool.num_bytes
    assert held <= 24 * each
    assert held // bytes_per_token >= 24 * 608
    engine.check_integrity()


@pytest.mark.parametrize("name", ["gptj", "bloom"])
def test_what_a_sequence_takes_by_itself_stays_within_what_was_reserved(zoo: Zoo, name: str) -> None:
    engine = engine_of(zoo, 0, 3, replace(LIMITS, prefill_chunk_tokens=8), name)
    engine.add(b"a", SequenceSpec(100, 50))
    engine.feed(b"a", 0, [5] * 100)
    while engine.has_work:
        engine.step()
    layers = engine._runner._caches[b"a"].layers
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers if layer.is_initialized)
    assert held == engine.used_cache_bytes - 100 * 4


@pytest.mark.parametrize(
    "wrong",
    [
        SequenceSpec(0, 1),
        SequenceSpec(1, 0),
        SequenceSpec(600, 41),
        SequenceSpec(1, 2**40),
        SequenceSpec(1, 1, OPTIONS),
    ],
)
def test_sequences_that_cannot_run_are_refused(first: Engine, wrong: SequenceSpec) -> None:
    with pytest.raises(InvalidSequence):
        first.add(b"a", wrong)
    assert first.num_sequences == 0
    assert first.used_cache_bytes == 0


@pytest.mark.parametrize(
    "wrong",
    [
        SequenceSpec(1, 1),
        SequenceSpec(1, 1, GenerationOptions(sampling=GREEDY, stop=("x",))),
        SequenceSpec(2, 1, PENALISED),
        SequenceSpec(2, 1, PENALISED, prompt_token_ids=(1,)),
        SequenceSpec(1, 1, GenerationOptions(sampling=Sampling(logit_bias={VOCAB_SIZE: 1.0}))),
        SequenceSpec(1, 1, PENALISED, prompt_token_ids=(VOCAB_SIZE,)),
    ],
)
def test_output_that_cannot_be_made_is_refused(last: Engine, wrong: SequenceSpec) -> None:
    with pytest.raises(InvalidSequence):
        last.add(b"a", wrong)
    assert last.num_sequences == 0


def test_the_context_is_bounded_by_the_model_too(zoo: Zoo) -> None:
    engine = engine_of(zoo, 0, 2, replace(LIMITS, max_context_tokens=10**6, max_cache_bytes=1 << 40))
    assert engine.max_context_tokens == 640
    boundless = engine_of(zoo, 0, 2, replace(LIMITS, max_context_tokens=10**6), name="bloom")
    assert boundless.max_context_tokens == 10**6


def test_a_sequence_is_opened_once(first: Engine) -> None:
    first.add(b"a", SequenceSpec(1, 1))
    with pytest.raises(InvalidSequence, match="already"):
        first.add(b"a", SequenceSpec(1, 1))
    assert b"a" in first


HOSTILE_TOKENS: list[object] = [
    b"\x01\x00\x00",
    b"\xff\xff\xff\xff",
    [VOCAB_SIZE],
    [-1],
    [2**70],
    [1.5],
    ["1"],
    [[1, 2]],
    np.array([1.0]),
    torch.tensor([0.5]),
    None,
    "text",
]


@pytest.mark.parametrize("payload", HOSTILE_TOKENS)
def test_hostile_token_ids_end_their_sequence_alone(first: Engine, payload: object) -> None:
    first.add(b"bad", SequenceSpec(4, 4))
    first.add(b"good", SequenceSpec(2, 4))
    with pytest.raises(InvalidInput):
        first.feed(b"bad", 0, payload)  # type: ignore[arg-type]
    assert b"bad" not in first
    first.feed(b"good", 0, [1, 2])
    (rows,) = first.step()
    assert isinstance(rows, HiddenRows)
    assert rows.rows.shape == (2, ROW)
    assert rows.rows.flags.c_contiguous


HOSTILE_HIDDEN: list[object] = [
    b"x",
    b"\x00" * (ROW + 4),
    hidden(float("nan")).tobytes(),
    hidden(float("inf")).tobytes(),
    np.full((1, 32), 0.5, dtype=np.float64),
    np.full((1, 31), 0.5, dtype=np.float32),
    np.full(32, 0.5, dtype=np.float32),
    torch.full((1, 32), 0.5, dtype=torch.bfloat16),
    [1, 2, 3],
    None,
]


@pytest.mark.parametrize("payload", HOSTILE_HIDDEN)
def test_hostile_hidden_states_end_their_sequence_alone(middle: Engine, payload: object) -> None:
    middle.add(b"bad", SequenceSpec(4, 4))
    middle.add(b"good", SequenceSpec(2, 4))
    with pytest.raises(InvalidInput):
        middle.feed(b"bad", 0, payload)  # type: ignore[arg-type]
    assert b"bad" not in middle
    middle.feed(b"good", 0, hidden().tobytes())
    assert [type(output) for output in middle.step()] == [HiddenRows]
    middle.check_integrity()


@pytest.mark.parametrize(
    ("first_position", "num_tokens"), [(1, 1), (0, 2), (-1, 1), (2, 0), (2, 6), (2**70, 1), (3, 1)]
)
def test_positions_must_continue_and_end(first: Engine, first_position: int, num_tokens: int) -> None:
    first.add(b"bad", SequenceSpec(4, 4))
    first.add(b"good", SequenceSpec(4, 4))
    first.feed(b"bad", 0, [1, 2])
    with pytest.raises(PositionMismatch):
        first.feed(b"bad", first_position, b"\x01\x00\x00\x00" * num_tokens)
    assert b"bad" not in first
    assert b"good" in first
    assert first.step() == []


def test_nothing_is_taken_for_sequences_that_are_not_open(first: Engine) -> None:
    with pytest.raises(UnknownSequence):
        first.feed(b"never", 0, [1])
    first.add(b"a", SequenceSpec(1, 1))
    first.feed(b"a", 0, [1])
    first.remove(b"a")
    first.remove(b"a")
    with pytest.raises(UnknownSequence):
        first.feed(b"a", 1, [1])
    assert first.step() == []


def test_rows_beyond_the_prompt_make_one_token_each_however_they_come(zoo: Zoo, last: Engine) -> None:
    """A sender that does not wait for tokens gets no more of them, and no fewer, than positions allow."""
    last.add(b"a", SequenceSpec(3, 4, OPTIONS))
    last.feed(b"a", 0, hidden(rows=6).tobytes())
    outputs = [output for _ in range(8) for output in last.step()]
    assert [type(output) for output in outputs] == [SampledToken] * 4
    assert [output.position for output in outputs if isinstance(output, SampledToken)] == [3, 4, 5, 6]
    assert b"a" not in last


def test_a_forward_that_fails_ends_its_sequence_alone(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(zoo, "llama")
    victim = pipeline.engines[1]
    run = victim._runner.run

    def fail_for_one(chunks: list[Chunk], inputs: torch.Tensor) -> object:
        if any(chunk.sequence_id == b"bad" for chunk in chunks):
            raise RuntimeError("out of memory")
        return run(chunks, inputs)

    monkeypatch.setattr(victim._runner, "run", fail_for_one)
    prompt = [5, 6, 7]
    pipeline.start(b"bad", prompt, spec(prompt, 4))
    pipeline.start(b"good", prompt, spec(prompt, 4))
    with pytest.raises(ForwardFailed, match="out of memory"):
        pipeline.run()
    assert b"bad" not in victim
    pipeline.run()
    assert len(pipeline.tokens[b"good"]) == 4


def test_a_draw_that_fails_ends_its_sequence_alone(last: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(logits: object) -> SampledToken:
        raise ValueError("no such token")

    for name in (b"first", b"bad", b"later"):
        last.add(name, SequenceSpec(2, 4, OPTIONS))
        last.feed(name, 0, hidden().tobytes())
    monkeypatch.setattr(last._outputs[b"bad"], "draw", fail)
    outputs = {output.sequence_id: output for output in last.step()}
    assert isinstance(outputs[b"bad"], SequenceFailed)
    assert [outputs[name].index for name in (b"first", b"later")] == [0, 0]  # type: ignore[union-attr]
    assert b"bad" not in last


def test_weights_that_give_no_numbers_fail_the_sequence(zoo: Zoo, last: Engine) -> None:
    norm = last._stage._model.get_submodule("model.norm")
    norm.weight = torch.nn.Parameter(torch.full_like(norm.weight, float("nan")), requires_grad=False)
    last.add(b"a", SequenceSpec(2, 4, OPTIONS))
    last.feed(b"a", 0, hidden().tobytes())
    (failure,) = last.step()
    assert isinstance(failure, SequenceFailed)
    assert failure.error.code == "forward_failed"
    assert last.num_sequences == 0


def test_every_error_has_a_short_code_of_its_own() -> None:
    codes = [error.code for error in (EngineError, *EngineError.__subclasses__())]
    assert len(set(codes)) == len(codes)


def test_finished_sequences_leave_nothing(zoo: Zoo) -> None:
    pipeline = Pipeline(zoo, "qwen2")
    for _ in range(3):
        assert len(ids(pipeline.generate([4, 5, 6], spec([4, 5, 6], 3)))) == 3
    for engine in pipeline.engines:
        assert engine.num_sequences == engine.used_cache_bytes == 0
        assert not engine._runner._inboxes
        engine.check_integrity()
