"""One forward over the next tokens of many sequences, laid end to end, with their keys and values in one pool.

Everything in a decoder but attention looks at one token at a time, so a batch is one long row of tokens with their
positions. transformers lets a program bring its own attention function (`AttentionInterface`): this one lets each
sequence's tokens attend to that sequence's keys alone, read where they lie, and makes its own causal and sliding masks.
Models that do not call it, or hide something in their masks (ALiBi), are found by `Stage` with a trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from declai.worker.model.layout import CacheLayout, Lane, Run

ATTENTION = "declai_packed"


@dataclass(frozen=True)
class Segment:
    """The next tokens of one sequence in a batch: from `first_position` on, with the lanes where its rows lie."""

    first_position: int
    num_tokens: int
    lanes: tuple[Lane, ...]

    @property
    def end(self) -> int:
        return self.first_position + self.num_tokens


class Pool:
    """The memory of a stage's sequences: uint8 [num_slots, bytes of a row], in which lanes lie (see `layout`).

    It is made at the first use. Nothing is cleared: a sequence writes its slot before it reads it.
    """

    def __init__(self, layout: CacheLayout, num_slots: int) -> None:
        self.layout = layout
        self.num_slots = num_slots
        self._memory: torch.Tensor | None = None
        self._shapes: dict[int, tuple[torch.Size, torch.Size, torch.Tensor]] = {}

    @property
    def num_bytes(self) -> int:
        return 0 if self._memory is None else self._memory.nbytes

    def write(self, layer: int, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put keys and values, [1, heads, tokens, head_dim], of a batch's tokens into their slots, int64 [tokens]."""
        if layer not in self._shapes:
            rows = self._memory_on(keys.device).view(keys.dtype)
            self._shapes[layer] = keys.shape, values.shape, rows
        rows = self._shapes[layer][2]
        new = torch.cat([keys[0].transpose(0, 1).flatten(1), values[0].transpose(0, 1).flatten(1)], dim=1)
        rows[:, : new.shape[1]].index_copy_(0, slots, new)

    def read(self, layer: int, runs: Sequence[Run]) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [1, heads, tokens, head_dim] of these runs: views of the pool when there is but one."""
        keys, values, rows = self._shapes[layer]
        if len(runs) == 1:
            slot, num_tokens = runs[0]
            begin = slot * rows.shape[1]
        else:
            rows, begin = torch.cat([rows[slot : slot + length] for slot, length in runs]), 0
            num_tokens = len(rows)
        num_key_elements = keys[1] * keys[3]
        return _view(rows, begin, keys, num_tokens), _view(rows, begin + num_key_elements, values, num_tokens)

    def read_at(self, layer: int, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the keys and values in slots [sequences, tokens]: [sequences, heads, tokens, head_dim] each."""
        keys, values, rows = self._shapes[layer]
        num_key_elements, num_value_elements = keys[1] * keys[3], values[1] * values[3]
        found = rows[:, : num_key_elements + num_value_elements].index_select(0, slots.flatten())
        own = zip(torch.split(found, [num_key_elements, num_value_elements], dim=1), (keys, values), strict=True)
        own_keys, own_values = (rows.reshape(*slots.shape, shape[1], shape[3]).transpose(1, 2) for rows, shape in own)
        return own_keys, own_values

    @torch.inference_mode()
    def copy(self, source: Sequence[Run], target: Sequence[Run]) -> None:
        """Put all that lies in some slots into as many others."""
        pieces = torch.split(self._rows(source), [length for _, length in target])
        for (slot, length), piece in zip(target, pieces, strict=True):
            self._made[slot : slot + length] = piece

    @torch.inference_mode()
    def clear(self, runs: Sequence[Run]) -> None:
        for slot, length in runs:
            self._made[slot : slot + length] = 0

    @property
    def _made(self) -> torch.Tensor:
        assert self._memory is not None, "nothing was written yet"
        return self._memory

    def _rows(self, runs: Sequence[Run]) -> torch.Tensor:
        return torch.cat([self._made[slot : slot + length] for slot, length in runs])

    def _memory_on(self, device: torch.device) -> torch.Tensor:
        if self._memory is None:
            self._memory = torch.empty(self.num_slots, self.layout.row_bytes, dtype=torch.uint8, device=device)
        return self._memory


class PackedBatch(Cache):
    """What a packed forward is about. Handed to the model as its cache; valid for that forward alone."""

    attention = ATTENTION

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
        for segment in segments:
            positions += range(segment.first_position, segment.end)
        self.positions = torch.tensor(positions, device=device)
        self._slots = torch.from_numpy(slots_of(segments, range(len(segments[0].lanes)))).to(device)
        self._masks: dict[tuple[int, int | None, int, bool], torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        slots = self._slots[self.pool.layout.lane_of_layer[layer_idx]]
        self.pool.write(layer_idx, slots, key_states.to(self.dtype), value_states.to(self.dtype))
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def past(
        self, layer: int, index: int, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Keys and values that the tokens of a segment may attend to, and which token to which, [tokens, keys]; None:
        all to all."""
        segment = self.segments[index]
        lane = segment.lanes[self.pool.layout.lane_of_layer[layer]]
        first_key = 0 if window is None else max(0, segment.first_position - window + 1)
        runs = lane.cut(first_key, segment.end)
        goes_round = len(runs) > 1 and len(lane.runs) == 1
        if goes_round:  # read where it lies, in the order in which it lies
            runs, first_key = lane.runs, segment.end - lane.num_slots
        mask = None if segment.num_tokens == 1 and not goes_round else self._mask(index, window, first_key, goes_round)
        return *self.pool.read(layer, runs), mask

    def _mask(self, index: int, window: int | None, first_key: int, goes_round: bool) -> torch.Tensor:
        """For the keys from `first_key` on; `goes_round`: not in order, but each in its slot of a full ring."""
        name = index, window, first_key, goes_round
        if name not in self._masks:
            segment, device = self.segments[index], self._slots.device
            queries = torch.arange(segment.first_position, segment.end, device=device).unsqueeze(1)
            keys = torch.arange(first_key, segment.end, device=device)
            if goes_round:
                keys = keys.roll(first_key % len(keys))
            allowed = keys <= queries
            if window is not None:
                allowed &= keys > queries - window
            self._masks[name] = allowed
        return self._masks[name]


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
    batch: PackedBatch = module.__dict__["declai_seam"].batch
    layer: int = module.layer_idx  # type: ignore[assignment]
    window = narrowest(sliding_window, batch.windows[layer])
    outputs, begin = [], 0
    for index, segment in enumerate(batch.segments):
        end = begin + segment.num_tokens
        keys, values, mask = batch.past(layer, index, window)
        rows = query[:, :, begin:end]
        outputs.append(attention_of(module, batch.dtype, rows, keys, values, mask, scaling, softcap, s_aux))
        begin = end
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return joined.transpose(1, 2).contiguous(), None


def narrowest(*windows: int | None) -> int | None:
    """In tokens; None or 0 where there is none."""
    return min((window for window in windows if window), default=None)


def attention_of(
    module: nn.Module,
    dtype: torch.dtype,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of queries [batch, heads, tokens, head_dim] to keys and values as they are stored, in `dtype`."""
    # Latent attention (DeepSeek) keeps compressed keys and values: the model's own method makes whole ones of them.
    expand = getattr(module, "expand_kv", None)
    if expand is not None:
        keys, values = expand(keys, values)
    # On the CPU attention in 16 bits takes ten times as long as in float32, widening included; elsewhere it is faster.
    narrow = query if query.device.type == "cpu" else query.to(dtype)
    keys, values = keys.to(narrow.dtype), values.to(narrow.dtype)
    if softcap is not None or sinks is not None:
        output = _attend_eagerly(narrow, keys, values, mask, scaling, softcap, sinks)
    else:
        output = functional.scaled_dot_product_attention(
            narrow, keys, values, mask, scale=scaling, enable_gqa=keys.shape[1] != query.shape[1]
        )
    return output.to(query.dtype)


def slots_of(segments: Sequence[Segment], lanes: Iterable[int]) -> NDArray[np.int64]:
    """Where the tokens of a batch go, in order: int64 [lanes, tokens]."""
    rows = []
    for number in lanes:
        row: list[int] = []
        for segment in segments:
            for slot, length in segment.lanes[number].cut(segment.first_position, segment.end):
                row += range(slot, slot + length)
        rows.append(row)
    return np.array(rows, dtype=np.int64)


def _view(rows: torch.Tensor, begin: int, shape: torch.Size, num_tokens: int) -> torch.Tensor:
    """[1, heads, tokens, head_dim] of rows [slots, elements], from one element of the first on."""
    _, heads, _, head_dim = shape
    width = rows.shape[1]
    return rows.as_strided((1, heads, num_tokens, head_dim), (width, head_dim, width, 1), begin)


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
        scores = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1)], dim=3)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return weights[..., : keys.shape[2]] @ values


def attach(model: nn.Module, seam: object) -> None:
    """Let a model's attention find the batch of a forward: transformers hands the function nothing but the module."""
    for module in model.modules():
        module.__dict__["declai_seam"] = seam


AttentionInterface.register(ATTENTION, attend)
