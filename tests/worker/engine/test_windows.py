"""Layers whose attention slides take memory for their window alone, and lose nothing by it."""

from dataclasses import replace

import pytest
import torch

from declai.worker.engine import AtCapacity, EngineLimits, HiddenRows, SequenceSpec
from declai.worker.model.layout import CacheLayout, Group, Lane
from declai.worker.model.packed import PackedBatch, Pool, Segment
from tests.support.pipelines import Pipeline, ask, engine_of, generated, hidden, ids, prompt_of, reused, spec
from tests.support.zoo import NUM_LAYERS, WINDOW, Zoo

LIMITS = EngineLimits(8, 640, 1 << 22, prefill_chunk_tokens=20, mixed_prefill_tokens=7)
RING = 48  # 15 positions before a step of 20, in blocks of 16
ROW = 32 * 4


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3", "cohere2", "gpt-oss"])
def test_sequences_far_longer_than_the_window(zoo: Zoo, name: str) -> None:
    pipeline = Pipeline(zoo, name, limits=LIMITS)
    prompts = {bytes([number]): prompt_of(length, seed=number) for number, length in enumerate((300, 9, 100))}
    for sequence_id, prompt in prompts.items():
        pipeline.start(sequence_id, prompt, spec(prompt, 120))
    pipeline.run()
    for sequence_id, prompt in prompts.items():
        assert ids(pipeline.tokens[sequence_id]) == generated(zoo, name, prompt, 120)


@pytest.mark.parametrize(
    ("name", "first", "end", "num_full", "num_sliding"),
    [("mistral", 1, 4, 0, 3), ("gemma2", 1, 4, 2, 1), ("llama", 1, 4, 3, 0), ("gpt-oss", 0, 4, 2, 2)],
)
def test_a_sequence_takes_the_length_of_its_full_layers_and_the_window_of_the_others(
    zoo: Zoo, name: str, first: int, end: int, num_full: int, num_sliding: int
) -> None:
    layer = zoo.architecture(name).layer_caches[0].elements_per_token * 4
    inbox = 100 * (4 if first == 0 else ROW)
    for num_tokens, full, ring in ((500, 512, RING), (101, 112, RING), (20, 32, 32)):
        engine = engine_of(zoo, first, end, replace(LIMITS, prefix_reuse=False), name)
        num_prompt = min(num_tokens, 100)
        engine.add(b"a", SequenceSpec(num_prompt, num_tokens - num_prompt + 1))
        assert engine.used_cache_bytes == (num_full * full + num_sliding * ring) * layer + inbox * num_prompt // 100


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
@pytest.mark.parametrize("reuse", [True, False])
def test_a_stage_filled_to_its_bound_keeps_to_it(zoo: Zoo, name: str, reuse: bool) -> None:
    limits = replace(LIMITS, max_sequences=100, max_cache_bytes=300_000, prefix_reuse=reuse)
    engine = engine_of(zoo, 1, 4, limits, name)
    open_ids = []
    for number in range(100):
        sequence_id = bytes([number])
        try:
            engine.add(sequence_id, SequenceSpec(100, 50, cache_salt=b"payer"))
        except AtCapacity:
            break
        open_ids.append(sequence_id)
        engine.feed(sequence_id, 0, hidden(rows=100).tobytes())
        while engine.has_work:
            assert all(isinstance(output, HiddenRows) for output in engine.step())
    each = engine.used_cache_bytes // len(open_ids)
    assert len(open_ids) == limits.max_cache_bytes // each > 1
    pool = engine._runner._pool
    assert pool is not None
    assert engine.used_cache_bytes - len(open_ids) * 100 * ROW <= pool.num_bytes <= limits.max_cache_bytes
    engine.check_integrity()


def test_stages_with_a_full_layer_reuse_whatever_the_windows_lost(zoo: Zoo) -> None:
    """The end of a chat is in the windows still, and its rows are in memory as long as its full layers are."""
    pipeline = Pipeline(zoo, "gemma2", (0, 2, 4, NUM_LAYERS), limits=LIMITS)
    first = prompt_of(100)
    answer = ask(pipeline, first, 30)
    second = [*first, *answer, *prompt_of(20, seed=2)]
    assert ask(pipeline, second) == generated(zoo, "gemma2", second, 8)
    assert reused(pipeline) == [128, 128, 128]


def test_what_a_ring_has_overwritten_is_computed_again(zoo: Zoo) -> None:
    pipeline = Pipeline(zoo, "mistral", limits=LIMITS)
    first, other = prompt_of(200), [*prompt_of(200)[:64], *prompt_of(40, seed=1)]
    for prompt in (first, other):
        assert ask(pipeline, prompt) == generated(zoo, "mistral", prompt, 8)
    assert reused(pipeline) == [0, 0, 0]


def test_positions_of_a_ring() -> None:
    ring = Lane(((100, 16), (300, 16)))
    assert ring.num_slots == 2 * WINDOW
    assert ring.cut(0, 32) == ((100, 16), (300, 16))
    assert ring.cut(30, 36) == ((314, 2), (100, 4))
    assert ring.cut(33, 33) == ()
    assert Lane(((8, 16),)).cut(20, 30) == ((12, 10),)


def test_a_ring_in_one_piece_and_one_in_two_have_masks_of_their_own() -> None:
    """Both are full, and so both begin with the same key: but one is read as it lies, the other in order."""
    one, two = Lane(((0, 32),)), Lane(((32, 16), (64, 16)))
    pool = Pool(CacheLayout(8, (Group((0, 1), window=17, max_slots=32),)), 80)
    batch = PackedBatch(pool, [Segment(24, 16, (one, two))], [17, 17], torch.device("cpu"))
    queries = torch.arange(24, 40).unsqueeze(1)
    for layer, keys in ((0, torch.arange(8, 40).roll(8)), (1, torch.arange(8, 40))):
        batch.update(torch.zeros(1, 1, 16, 1), torch.zeros(1, 1, 16, 1), layer)
        _, _, mask = batch.past(layer, 0, 17)
        assert mask is not None
        assert torch.equal(mask, (keys <= queries) & (keys > queries - 17))
