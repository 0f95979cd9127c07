"""What was computed once is not computed again, and nobody can tell from the output."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from declai.protocol.options import GenerationOptions
from declai.worker.engine import Engine, EngineLimits, ForwardFailed, HiddenRows, SampledToken, SequenceSpec
from declai.worker.engine.memory.kept_rows import PAGE_ROWS, RowsLost
from declai.worker.engine.turns.step import Chunk
from tests.support.pipelines import GREEDY, Pipeline, ask, engine_of, generated, ids, prompt_of, reused, spec
from tests.support.zoo import NUM_LAYERS, ONE_BY_ONE, Zoo

LIMITS = EngineLimits(8, 640, 1 << 24, prefill_chunk_tokens=48, mixed_prefill_tokens=20)
WIDE = replace(LIMITS, prefill_chunk_tokens=150)  # rings hold whole chats
FAMILIES = ["llama", "mistral", "gemma2", "gemma3", "gpt2", "opt", "mixtral", "deepseek-v3", "gpt-oss", "bloom"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_chat_computes_only_what_is_new(zoo: Zoo, name: str) -> None:
    pipeline = Pipeline(zoo, name, limits=WIDE)
    first = prompt_of(100)
    answer = ask(pipeline, first, 30)
    assert answer == generated(zoo, name, first, 30)
    assert reused(pipeline) == [0, 0, 0]
    second = [*first, *answer, *prompt_of(20, seed=2)]
    assert ask(pipeline, second) == generated(zoo, name, second, 8)
    # All positions but the first answer's last were computed: 129, of which 8 blocks are whole.
    assert reused(pipeline) == ([0, 0, 0] if name in ONE_BY_ONE else [128, 128, 128])
    assert [engine.stats.num_reusable_tokens for engine in pipeline.engines] == (
        [0, 0, 0] if name in ONE_BY_ONE else [250, 250, 250]
    )
    for engine in pipeline.engines:
        assert engine.used_cache_bytes == 0
        engine.check_integrity()


def test_the_last_stage_computes_what_it_draws_from(zoo: Zoo) -> None:
    pipeline = Pipeline(zoo, "llama", limits=LIMITS)
    prompt = prompt_of(64)
    for expected in ([0, 0, 0], [64, 64, 48], [128, 128, 96]):
        assert ask(pipeline, prompt) == generated(zoo, "llama", prompt, 8)
        assert reused(pipeline) == expected


def test_prompts_that_come_at_once_share_what_one_of_them_computes(zoo: Zoo) -> None:
    pipeline = Pipeline(zoo, "qwen3", limits=LIMITS)
    system = prompt_of(200)
    prompts = {bytes([number]): [*system, *prompt_of(10 + number, seed=number)] for number in range(4)}
    for sequence_id, prompt in prompts.items():
        pipeline.start(sequence_id, prompt, spec(prompt, 8, cache_salt=b"payer"))
    pipeline.run()
    for sequence_id, prompt in prompts.items():
        assert ids(pipeline.tokens[sequence_id]) == generated(zoo, "qwen3", prompt, 8)
    assert all(number > 400 for number in reused(pipeline))


def test_what_the_next_stage_needs_and_is_kept_no_more_is_computed_again(zoo: Zoo) -> None:
    prompt = prompt_of(100)
    row_bytes = 4 * zoo.architecture("llama").hidden_size
    for num_pages, expected in [(0, [0, 0]), (2, [0, 0]), (8, [96, 96])]:
        pipeline = Pipeline(zoo, "llama", limits=LIMITS, max_kept_bytes=num_pages * PAGE_ROWS * row_bytes)
        for _ in range(2):
            assert ask(pipeline, prompt) == generated(zoo, "llama", prompt, 8)
        assert reused(pipeline)[:2] == expected
        for engine in pipeline.engines:
            engine.check_integrity()


def test_what_was_handed_out_can_be_had_again_while_the_sequence_is_open(zoo: Zoo) -> None:
    for name in ("llama", "bloom"):  # in a batch, and one by one
        stage = engine_of(zoo, 0, 2, LIMITS, name)
        prompt, handed_out = prompt_of(90), list[HiddenRows]()
        stage.add(b"s", SequenceSpec(len(prompt), 1))
        stage.feed(b"s", 0, prompt)
        while stage.has_work:
            handed_out += [output for output in stage.step() if isinstance(output, HiddenRows)]
        assert np.array_equal(stage.kept_rows(b"s", 0, 90), np.concatenate([output.rows for output in handed_out]))
        assert np.array_equal(stage.kept_rows(b"s", 31, 65), stage.kept_rows(b"s", 0, 90)[31:65])
        with pytest.raises(RowsLost):
            stage.kept_rows(b"s", 0, 91)
        stage.remove(b"s")
        with pytest.raises(RowsLost):
            stage.kept_rows(b"s", 0, 1)


def test_nobody_meets_what_another_payer_computed(zoo: Zoo) -> None:
    pipeline = Pipeline(zoo, "llama", limits=LIMITS)
    prompt = prompt_of(100)
    for salt in (b"one", b"other", b"", b""):
        assert ask(pipeline, prompt, salt=salt) == generated(zoo, "llama", prompt, 8)
    assert reused(pipeline) == [0, 0, 0]


def test_a_node_may_do_without(zoo: Zoo) -> None:
    pipeline = Pipeline(zoo, "llama", limits=replace(LIMITS, prefix_reuse=False))
    prompt = prompt_of(100)
    for _ in range(2):
        assert ask(pipeline, prompt) == generated(zoo, "llama", prompt, 8)
    assert reused(pipeline) == [0, 0, 0]


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral"])
def test_a_full_pool_forgets_the_oldest_and_stays_right(zoo: Zoo, name: str) -> None:
    """Three chats, and ever longer others, in memory for a few of them."""
    pipeline = Pipeline(zoo, name, limits=replace(LIMITS, max_cache_bytes=190_000))
    chats = {bytes([number]): prompt_of(40 + 25 * number, seed=number) for number in range(3)}
    expected = {number: generated(zoo, name, prompt, 6) for number, prompt in chats.items()}
    for turn in range(8):
        number = bytes([(turn * turn) % 3])
        assert ask(pipeline, chats[number], 6) == expected[number]
        long = prompt_of(30 + 29 * turn, seed=100 + turn)
        assert ask(pipeline, long, 6) == generated(zoo, name, long, 6)
        for engine in pipeline.engines:
            engine.check_integrity()


def test_a_forward_that_failed_leaves_nothing(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(zoo, "llama", limits=LIMITS)
    victim, prompt = pipeline.engines[1], prompt_of(120)
    run = victim._runner.run

    def fail_later(chunks: list[Chunk], inputs: object) -> object:
        if chunks[0].first_position:
            raise RuntimeError("out of memory")
        return run(chunks, inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(victim._runner, "run", fail_later)
    with pytest.raises(ForwardFailed):
        ask(pipeline, prompt)
    for engine in pipeline.engines:
        engine.remove(b"only")
    monkeypatch.undo()
    assert ask(pipeline, prompt) == generated(zoo, "llama", prompt, 8)
    assert victim.stats.num_reused_tokens == 0
    assert pipeline.engines[0].stats.num_reused_tokens > 0


def test_rows_that_were_computed_before_are_the_same_to_the_last_bit(zoo: Zoo) -> None:
    engine = engine_of(zoo, 0, 2, replace(LIMITS, prefill_chunk_tokens=20))
    prompt = prompt_of(70)

    def rows(sequence_id: bytes) -> bytes:
        engine.add(sequence_id, SequenceSpec(70, 1, cache_salt=b"payer"))
        engine.feed(sequence_id, 0, prompt)
        found, at = b"", 0
        while engine.has_work:
            for output in engine.step():
                assert isinstance(output, HiddenRows)
                assert output.first_position == at
                found, at = found + output.rows.tobytes(), at + output.num_tokens
        engine.remove(sequence_id)
        return found

    first = rows(b"1")
    assert rows(b"2")[: 64 * 128] == first[: 64 * 128]
    assert engine.stats.num_reused_tokens == 64


def test_one_stage_reuses_too(zoo: Zoo) -> None:
    engine = engine_of(zoo, 0, NUM_LAYERS)
    prompt = prompt_of(50)
    assert [drawn(engine, prompt) for _ in range(2)] == [generated(zoo, "llama", prompt, 4)] * 2
    assert engine.stats.num_reused_tokens == 48


def drawn(engine: Engine, prompt: Sequence[int]) -> list[int]:
    engine.add(b"a", SequenceSpec(len(prompt), 4, GenerationOptions(sampling=GREEDY), cache_salt=b"payer"))
    engine.feed(b"a", 0, prompt)
    tokens: list[int] = []
    while engine.has_work:
        for output in engine.step():
            assert isinstance(output, SampledToken)
            tokens.append(output.token_id)
            if output.finish_reason is None:
                engine.feed(b"a", output.position, [output.token_id])
    return tokens
