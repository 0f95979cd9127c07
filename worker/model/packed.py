"""One forward over the next tokens of many sessions, laid end to end, with their keys and values in one pool.

Everything in a decoder but attention looks at one token at a time, so a batch is one long row of tokens with their
positions. transformers lets a program bring its own attention function (`AttentionInterface`): this one lets each
session's tokens attend to that session's keys alone, read where they lie, and makes its own causal and sliding masks.
Models that do not call it, or hide something in their masks (ALiBi), are found by `Stage` with a trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.cache_utils import Cache

ATTENTION = "declai_packed"


@dataclass(frozen=True)
class Segment:
    """The next tokens of one session in a batch.

    Attributes:
        first_position: of its first token in the session.
        runs: where the session's keys lie in the pool, from position 0 to the last of these tokens: (slot, length)s.
    """

    first_position: int
    num_tokens: int
    runs: tuple[tuple[int, int], ...]

    @property
    def end(self) -> int:
        return self.first_position + self.num_tokens


class Pool:
    """Keys and values of one stage's layers, [num_slots, heads, head_dim] each; one slot is one token's place.

    A layer's tensors are made at its first use, when its shapes are known. Nothing is cleared: who is given a slot
    writes it before he reads it.
    """

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def num_bytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self._layers.values())

    def write(self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put keys and values, [1, heads, tokens, head_dim], of a batch's tokens into their slots, int64 [tokens]."""
        if layer not in self._layers:
            self._layers[layer] = self._make(keys), self._make(values)
        for pool, new in zip(self._layers[layer], (keys, values), strict=True):
            pool.index_copy_(0, slots, new[0].transpose(0, 1))

    def read(self, layer: int, runs: Sequence[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [1, heads, tokens, head_dim] of these runs: views of the pool when there is but one."""
        keys, values = (self._read(pool, runs) for pool in self._layers[layer])
        return keys, values

    def _make(self, like: torch.Tensor) -> torch.Tensor:
        return torch.empty(self.num_slots, like.shape[1], like.shape[3], dtype=like.dtype, device=like.device)

    def _read(self, pool: torch.Tensor, runs: Sequence[tuple[int, int]]) -> torch.Tensor:
        pieces = [pool[slot : slot + length] for slot, length in runs]
        rows = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return rows.transpose(0, 1).unsqueeze(0)


class Batch(Cache):
    """What a packed forward is about. Handed to the model as its cache; valid for that forward alone."""

    def __init__(
        self,
        pool: Pool,
        segments: Sequence[Segment],
        windows: Sequence[int | None],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`windows`: of every layer of the model. `dtype`: in which keys and values are kept."""
        super().__init__(layers=[])
        self.pool = pool
        self.segments = segments
        self.windows = windows
        self.dtype = dtype
        positions: list[int] = []
        slots: list[int] = []
        for segment in segments:
            positions += range(segment.first_position, segment.end)
            for slot, length in cut(segment.runs, segment.first_position, segment.end):
                slots += range(slot, slot + length)
        self.positions = torch.tensor(positions, device=device)
        self._slots = torch.tensor(slots, device=device)
        self._masks: dict[tuple[int, int | None], torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.pool.write(layer_idx, self._slots, key_states.to(self.dtype), value_states.to(self.dtype))
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def mask(self, index: int, first_key: int, window: int | None) -> torch.Tensor | None:
        """Which keys from position `first_key` on the tokens of a segment may attend to, [tokens, keys]; None: all."""
        segment = self.segments[index]
        if segment.num_tokens == 1:
            return None
        if (index, window) not in self._masks:
            queries = torch.arange(segment.first_position, segment.end, device=self._slots.device).unsqueeze(1)
            keys = torch.arange(first_key, segment.end, device=self._slots.device)
            allowed = keys <= queries
            if window is not None:
                allowed &= keys > queries - window
            self._masks[index, window] = allowed
        return self._masks[index, window]


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function: query [1, heads, tokens, head_dim] -> [1, tokens, heads, value_dim]."""
    batch: Batch = module.__dict__["declai_seam"].batch
    layer: int = module.layer_idx  # type: ignore[assignment]
    window = min((size for size in (sliding_window, batch.windows[layer]) if size), default=None)
    # Latent attention (DeepSeek) keeps compressed keys and values: the model's own method makes whole ones of them.
    expand = getattr(module, "expand_kv", None)
    # On the CPU attention in 16 bits takes ten times as long as in float32, widening included; elsewhere it is faster.
    narrow = query if query.device.type == "cpu" else query.to(batch.dtype)
    outputs, begin = [], 0
    for index, segment in enumerate(batch.segments):
        end = begin + segment.num_tokens
        first_key = 0 if window is None else max(0, segment.first_position - window + 1)
        keys, values = batch.pool.read(layer, cut(segment.runs, first_key, segment.end))
        if expand is not None:
            keys, values = expand(keys, values)
        keys, values = keys.to(narrow.dtype), values.to(narrow.dtype)
        mask = batch.mask(index, first_key, window)
        if softcap is None and s_aux is None:
            output = functional.scaled_dot_product_attention(
                narrow[:, :, begin:end], keys, values, mask, scale=scaling, enable_gqa=keys.shape[1] != query.shape[1]
            )
        else:
            output = _attend_eagerly(narrow[:, :, begin:end], keys, values, mask, scaling, softcap, s_aux)
        outputs.append(output)
        begin = end
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return joined.transpose(1, 2).to(query.dtype).contiguous(), None


def cut(runs: Sequence[tuple[int, int]], first: int, end: int) -> tuple[tuple[int, int], ...]:
    """What runs have of the positions [first, end), when they begin with position 0."""
    found, begin = [], 0
    for slot, length in runs:
        low, high = max(first, begin), min(end, begin + length)
        if low < high:
            found.append((slot + low - begin, high - low))
        begin += length
    return tuple(found)


def _attend_eagerly(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention with what torch's own has no place for: capped scores (Gemma 2), a sink per head (gpt-oss)."""
    groups = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
    scores = query @ keys.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(1, -1, scores.shape[2], 1)], dim=3)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return weights[..., : keys.shape[2]] @ values


def attach(model: nn.Module, seam: object) -> None:
    """Let a model's attention find the batch of a forward: transformers hands the function nothing but the module."""
    for module in model.modules():
        module.__dict__["declai_seam"] = seam


AttentionInterface.register(ATTENTION, attend)
