"""A batch in a shape that does not change: the next token of each of so many sequences, of at most so many keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from declai.worker.model.layout import BLOCK_TOKENS, Lane
from declai.worker.model.packed import Pool, Segment, attention_of, narrowest

ATTENTION = "declai_static"


class StaticBatch(Cache):
    """As `PackedBatch`: the next token of each of `num_sequences` sequences, of at most `num_keys` tokens each."""

    attention = ATTENTION

    def __init__(
        self,
        pool: Pool,
        num_sequences: int,
        num_keys: int,
        windows: Sequence[int | None],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(layers=[])
        self.pool = pool
        self.windows = windows
        self.dtype = dtype
        self.positions = torch.zeros(num_sequences, dtype=torch.long, device=device)
        self._tables: list[torch.Tensor] = []
        self._lengths: list[torch.Tensor] = []
        for group in pool.layout.groups:
            most = num_keys if group.max_slots is None else min(num_keys, group.max_slots)
            shape = len(group.layers), num_sequences, -(-most // BLOCK_TOKENS)
            self._tables.append(torch.zeros(shape, dtype=torch.long, device=device))
            self._lengths.append(torch.ones(num_sequences, 1, dtype=torch.long, device=device))
        self._held: list[tuple[Lane, ...] | None] = [None] * num_sequences
        self._new_slots: dict[int, torch.Tensor] = {}
        self._key_slots: dict[int, torch.Tensor] = {}
        self._key_positions: dict[int, torch.Tensor] = {}

    def fill(self, segments: Sequence[Segment]) -> None:
        """Make it about these; what pads it repeats the last of them, and writes the same to the same slot."""
        rows = [segments[min(row, len(segments) - 1)] for row in range(len(self.positions))]
        self.positions.copy_(torch.tensor([segment.first_position for segment in rows]))
        for row, segment in enumerate(rows):
            if self._held[row] is not segment.lanes:
                self._held[row] = segment.lanes
                self._hold(row, segment.lanes)

    def _hold(self, row: int, lanes: Sequence[Lane]) -> None:
        begin = 0
        for group, table, lengths in zip(self.pool.layout.groups, self._tables, self._lengths, strict=True):
            own = lanes[begin : begin + len(group.layers)]
            begin += group.num_lanes
            blocks = torch.tensor([_blocks(lane, table.shape[2]) for lane in own])
            table[:, row].copy_(blocks)
            lengths[row] = own[0].num_slots

    def begin(self) -> None:
        """Work out from positions and tables where the step reads and writes. Part of what is recorded."""
        positions = self.positions.unsqueeze(1)
        for group, table, lengths in zip(self.pool.layout.groups, self._tables, self._lengths, strict=True):
            places = torch.arange(table.shape[2] * BLOCK_TOKENS, device=positions.device)
            # A lane's place holds the last position that went there: of a ring, one of the last round.
            held = positions - torch.remainder(positions - places, lengths)
            held = torch.where(places < lengths, held, -1)
            new_places = torch.remainder(positions, lengths)
            new_blocks = table.gather(2, (new_places // BLOCK_TOKENS).expand(len(table), -1, 1))
            new_slots = new_blocks * BLOCK_TOKENS + new_places % BLOCK_TOKENS
            slots = table.unsqueeze(3) * BLOCK_TOKENS + torch.arange(BLOCK_TOKENS, device=positions.device)
            # Places that hold nothing are masked, but 0 times NaN is NaN: they show what is surely written.
            slots = torch.where(held >= 0, slots.flatten(2), new_slots)
            for index, layer in enumerate(group.layers):
                self._new_slots[layer] = new_slots[index].squeeze(1)
                self._key_slots[layer] = slots[index]
                self._key_positions[layer] = held

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        slots = self._new_slots[layer_idx]
        self.pool.write(layer_idx, slots, key_states.to(self.dtype), value_states.to(self.dtype))
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def past(self, layer: int, window: int | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys and values [sequences, heads, keys, head_dim], and which are a sequence's own and within its window."""
        positions = self._key_positions[layer]
        allowed = positions >= 0
        if window is not None:
            allowed &= positions > self.positions.unsqueeze(1) - window
        return *self.pool.read_at(layer, self._key_slots[layer]), allowed[:, None, None]


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
    """transformers' attention function: query [1, heads, sequences, head_dim] -> [1, sequences, heads, value_dim]."""
    batch: StaticBatch = module.__dict__["declai_seam"].batch
    layer: int = module.layer_idx  # type: ignore[assignment]
    keys, values, mask = batch.past(layer, narrowest(sliding_window, batch.windows[layer]))
    rows = query[0].transpose(0, 1).unsqueeze(2)
    output = attention_of(module, batch.dtype, rows, keys, values, mask, scaling, softcap, s_aux)
    return output.squeeze(2).unsqueeze(0).contiguous(), None


def _blocks(lane: Lane, number: int) -> list[int]:
    """The first so many blocks of a lane; after its end the last one again."""
    blocks = [
        block for slot, length in lane.runs for block in range(slot // BLOCK_TOKENS, (slot + length) // BLOCK_TOKENS)
    ]
    return (blocks + [blocks[-1]] * number)[:number]


AttentionInterface.register(ATTENTION, attend)
