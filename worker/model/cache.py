"""The keys and values of one sequence's layers, in buffers allocated once, behind transformers' cache interface.

transformers' own dynamic cache copies every layer's keys and values on every token. Here the bound on a sequence's
length is known when it is admitted, so each layer gets one buffer of that length and writes into it. (The operating
system hands out its pages only when they are written, so a short answer costs little of a long bound.)
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from declai.worker.model.architecture import Architecture, LayerCache


def capacity_tokens(layer: LayerCache, max_tokens: int, max_chunk_tokens: int) -> int:
    """How many tokens a layer's buffer holds: all of them, or two windows and a chunk where a window slides."""
    if layer.window is None:
        return max_tokens
    return min(max_tokens, 2 * (layer.window - 1) + max_chunk_tokens)


def cache_bytes(
    architecture: Architecture,
    first_layer: int,
    end_layer: int,
    max_tokens: int,
    max_chunk_tokens: int,
    bytes_per_element: int,
) -> int:
    """The most memory one sequence of `max_tokens` takes in layers [first_layer, end_layer)."""
    return sum(
        layer.elements_per_token * capacity_tokens(layer, max_tokens, max_chunk_tokens) * bytes_per_element
        for layer in architecture.layer_caches[first_layer:end_layer]
    )


class BufferedLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, [1, heads, tokens, head_dim] each, in a buffer of fixed capacity.

    A layer outside the slice is never updated and allocates nothing: it only knows how many tokens were seen, because
    transformers asks any layer it likes for the length when it makes masks. What it hands out has the dtype of what it
    was given last, whatever it stores.
    """

    is_croppable = False
    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, capacity: int, window: int | None, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self.dtype = dtype
        self.sliding_window = window
        self.is_sliding = window is not None
        self.num_tokens = 0
        self._num_held = 0
        self._max_past = capacity if window is None else window - 1

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        def buffer(like: torch.Tensor) -> torch.Tensor:
            return torch.empty((*like.shape[:2], self.capacity, like.shape[-1]), dtype=self.dtype, device=like.device)

        self.device = key_states.device
        self.keys, self.values = buffer(key_states), buffer(value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store the new tokens; returns all that the new tokens may attend to, valid until the next call."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        num_new = key_states.shape[-2]
        num_past = min(self.num_tokens, self._max_past)
        if self._num_held + num_new > self.capacity:
            self._keep_only(num_past)
        if self._num_held + num_new > self.capacity:
            raise ValueError(f"{num_new} more tokens after {self.num_tokens}; the layer was made for {self.capacity}")
        begin, end = self._num_held - num_past, self._num_held + num_new
        self.keys[:, :, self._num_held : end] = key_states
        self.values[:, :, self._num_held : end] = value_states
        self._num_held = end
        self.num_tokens += num_new
        keys, values = self.keys[:, :, begin:end], self.values[:, :, begin:end]
        return keys.to(key_states.dtype), values.to(value_states.dtype)

    def _keep_only(self, num_past: int) -> None:
        kept = slice(self._num_held - num_past, self._num_held)
        self.keys[:, :, :num_past] = self.keys[:, :, kept].clone()
        self.values[:, :, :num_past] = self.values[:, :, kept].clone()
        self._num_held = num_past

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        num_past = min(self.num_tokens, self._max_past)
        return num_past + query_length, self.num_tokens - num_past

    def get_seq_length(self) -> int:
        return self.num_tokens

    def get_max_length(self) -> int:
        return self.capacity if self.sliding_window is None else self.sliding_window


class StageCache(Cache):
    """One sequence's cache at one stage: real layers for [first_layer, end_layer), lengths alone for the others.

    Mutated by every forward of its sequence; valid until dropped. Its memory is freed with it.
    """

    def __init__(
        self,
        architecture: Architecture,
        first_layer: int,
        end_layer: int,
        max_tokens: int,
        max_chunk_tokens: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`dtype`: in which keys and values are kept."""
        layers = [
            BufferedLayer(capacity_tokens(layer, max_tokens, max_chunk_tokens), layer.window, dtype)
            for layer in architecture.layer_caches
        ]
        super().__init__(layers=[*layers])
        self.num_tokens = 0
        self.max_tokens = max_tokens
        self.max_chunk_tokens = max_chunk_tokens
        self._outside = layers[:first_layer] + layers[end_layer:]
        self._is_sliding = [layer.is_sliding for layer in layers]
        self._never = [False] * len(layers)

    # transformers asks these of all layers several times in each forward; they never change.
    @property
    def is_sliding(self) -> list[bool]:
        return self._is_sliding

    @property
    def is_linear(self) -> list[bool]:
        return self._never

    @property
    def is_dummy(self) -> list[bool]:
        return self._never

    def advance(self, num_new_tokens: int) -> None:
        """To be called once after each forward, so that all layers agree on the length again."""
        self.num_tokens += num_new_tokens
        for layer in self._outside:
            layer.num_tokens = self.num_tokens
