"""The buffered cache answers exactly as transformers' own growing one does."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from declai.worker.model.cache import BufferedLayer, StageCache, cache_bytes, capacity_tokens
from tests.support.zoo import Zoo

MAX_CHUNK = 9


@given(
    window=st.none() | st.integers(2, 12),
    chunks=st.lists(st.integers(1, MAX_CHUNK) | st.just(1), min_size=1, max_size=40),
)
def test_any_sequence_of_chunks(window: int | None, chunks: list[int]) -> None:
    total = sum(chunks)
    capacity = total if window is None else min(total, 2 * (window - 1) + MAX_CHUNK)
    ours = BufferedLayer(capacity, window)
    theirs = DynamicLayer() if window is None else DynamicSlidingWindowLayer(sliding_window=window)
    states = torch.randn(1, 2, total, 3), torch.randn(1, 2, total, 4)
    at = 0
    for num_tokens in chunks:
        assert ours.get_mask_sizes(num_tokens) == theirs.get_mask_sizes(num_tokens)
        keys, values = (state[:, :, at : at + num_tokens] for state in states)
        for mine, reference in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(mine, reference)
        at += num_tokens
        assert ours.get_seq_length() == theirs.get_seq_length() == at


def test_memory_of_a_session_is_what_was_reserved(zoo: Zoo) -> None:
    architecture = zoo.architecture("gemma2")
    cache = StageCache(architecture, 1, 4, max_tokens=200, max_chunk_tokens=8)
    for index in (1, 2, 3):
        cache.layers[index].update(torch.randn(1, 2, 8, 16), torch.randn(1, 2, 8, 16))
    allocated = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers if layer.is_initialized)
    assert allocated == cache_bytes(architecture, 1, 4, 200, 8, bytes_per_element=4)
    assert [capacity_tokens(layer, 200, 8) for layer in architecture.layer_caches[1:4]] == [200, 38, 200]


def test_layers_outside_the_slice_know_the_length_and_hold_nothing(zoo: Zoo) -> None:
    cache = StageCache(zoo.architecture("mistral"), 2, 3, max_tokens=100, max_chunk_tokens=10)
    for _ in range(3):
        cache.layers[2].update(torch.randn(1, 2, 10, 8), torch.randn(1, 2, 10, 8))
        cache.advance(10)
    assert {layer.get_seq_length() for layer in cache.layers} == {30}
    assert {layer.get_mask_sizes(1) for layer in cache.layers} == {(16, 15)}
    assert [layer.is_initialized for layer in cache.layers] == [False, False, True, False, False]


def test_a_full_buffer_does_not_grow() -> None:
    layer = BufferedLayer(4, None)
    layer.update(torch.randn(1, 1, 4, 2), torch.randn(1, 1, 4, 2))
    with pytest.raises(ValueError, match="made for 4"):
        layer.update(torch.randn(1, 1, 1, 2), torch.randn(1, 1, 1, 2))
