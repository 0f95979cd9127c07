"""Decode steps in shapes that do not change, so that a GPU can replay one recorded graph instead of being told each
kernel anew: with a token per session that telling is most of a step's time.

A batch is padded to a number of sessions and of keys, each a power of two. Where a session's keys lie is a table of
blocks, [lanes, blocks]; they are gathered by it, and one attention with a mask takes them all. Recording needs CUDA;
the same steps run anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from worker.model.layout import BLOCK_TOKENS, Lane
from worker.model.packed import Pool, Segment, attention_of, narrowest

if TYPE_CHECKING:
    from worker.model.stage import Stage

ATTENTION = "declai_static"
MAX_SESSIONS = 32
MIN_KEYS = 256
_NUM_WARM_UPS = 3  # libraries choose their kernels, and take their memory, in the first runs
# What a graph computes may differ from the same step without one by rounding alone.
_MAX_DIFFERENCE = 1e-2

log = logging.getLogger(__name__)


class StaticBatch(Cache):
    """As `packed.Batch`: the next token of each of `num_sessions` sessions, of at most `num_keys` tokens each."""

    attention = ATTENTION

    def __init__(
        self,
        pool: Pool,
        num_sessions: int,
        num_keys: int,
        windows: Sequence[int | None],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(layers=[])
        self.pool = pool
        self.windows = windows
        self.dtype = dtype
        self.positions = torch.zeros(num_sessions, dtype=torch.long, device=device)
        self._tables: list[torch.Tensor] = []
        self._lengths: list[torch.Tensor] = []
        for group in pool.layout.groups:
            most = num_keys if group.max_slots is None else min(num_keys, group.max_slots)
            shape = len(group.layers), num_sessions, -(-most // BLOCK_TOKENS)
            self._tables.append(torch.zeros(shape, dtype=torch.long, device=device))
            self._lengths.append(torch.ones(num_sessions, 1, dtype=torch.long, device=device))
        self._held: list[tuple[Lane, ...] | None] = [None] * num_sessions
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
        """Keys and values [sessions, heads, keys, head_dim], and which are a session's own and within its window."""
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
    """transformers' attention function: query [1, heads, sessions, head_dim] -> [1, sessions, heads, value_dim]."""
    batch: StaticBatch = module.__dict__["declai_seam"].batch
    layer: int = module.layer_idx  # type: ignore[assignment]
    keys, values, mask = batch.past(layer, narrowest(sliding_window, batch.windows[layer]))
    rows = query[0].transpose(0, 1).unsqueeze(2)
    output = attention_of(module, batch.dtype, rows, keys, values, mask, scaling, softcap, s_aux)
    return output.squeeze(2).unsqueeze(0).contiguous(), None


class _Step:
    """The decode step of one shape: its inputs and outputs lie where they lay when it was recorded."""

    def __init__(self, stage: Stage, pool: Pool, num_sessions: int, num_keys: int) -> None:
        self._stage = stage
        self._batch = StaticBatch(pool, num_sessions, num_keys, stage.windows, stage.device, stage.cache_dtype)
        shape = (num_sessions,) if stage.is_first else (num_sessions, stage.architecture.hidden_size)
        self._inputs = torch.zeros(shape, dtype=torch.long if stage.is_first else stage.dtype, device=stage.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: torch.Tensor | None = None

    def fill(self, inputs: torch.Tensor, segments: Sequence[Segment]) -> None:
        self._inputs[: len(inputs)].copy_(inputs)
        self._inputs[len(inputs) :] = inputs[-1]
        self._batch.fill(segments)

    def run(self) -> torch.Tensor:
        return self._stage.forward_static(self._inputs, self._batch)

    def replay(self, memory: Any) -> torch.Tensor:
        """As `run`, by a graph; recorded when first called. Valid until the next call of any step with that memory.

        Raises RuntimeError when the step cannot be recorded, or its graph computes something else.
        """
        if self._graph is not None:
            self._graph.replay()
        else:
            expected = self._warm_up()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=memory, capture_error_mode="thread_local"):
                self._outputs = self.run()
            graph.replay()
            if not torch.allclose(self._outputs, expected, atol=_MAX_DIFFERENCE * float(expected.abs().max()), rtol=0):
                raise RuntimeError("the graph's outputs are not those of the step that it was recorded from")
            self._graph = graph
        assert self._outputs is not None
        return self._outputs

    def _warm_up(self) -> torch.Tensor:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = [self.run() for _ in range(_NUM_WARM_UPS)]
        torch.cuda.current_stream().wait_stream(stream)
        return outputs[-1]


class StaticDecode:
    """Runs decode steps of one stage over one pool. With `records`, as CUDA graphs."""

    def __init__(self, stage: Stage, pool: Pool, *, records: bool) -> None:
        self._stage = stage
        self._pool = pool
        self._records = records
        self._memory = torch.cuda.graph_pool_handle() if records else None  # one for all: they never run side by side
        self._steps: dict[tuple[int, int], _Step] = {}
        self._failed = False

    def takes(self, segments: Sequence[Segment]) -> bool:
        """Whether a batch is a decode step that can be run here."""
        return (
            not self._failed and len(segments) <= MAX_SESSIONS and all(segment.num_tokens == 1 for segment in segments)
        )

    def run(self, inputs: torch.Tensor, segments: Sequence[Segment]) -> torch.Tensor:
        """As `Stage.forward_packed`, or at the last stage as `forward_packed_logits` for all rows."""
        shape = _power_of_two(len(segments)), max(MIN_KEYS, _power_of_two(max(segment.end for segment in segments)))
        if shape not in self._steps:
            self._steps[shape] = _Step(self._stage, self._pool, *shape)
        step = self._steps[shape]
        step.fill(inputs, segments)
        return (self._replay(step) if self._records else step.run())[: len(segments)]

    def _replay(self, step: _Step) -> torch.Tensor:
        try:
            return step.replay(self._memory)
        except RuntimeError as error:  # a model whose steps depend on numbers cannot be recorded
            log.warning("decode steps are not recorded: %s", error)
            self._failed = True
            self._steps.clear()  # their graphs hold memory
            return step.run()


def _power_of_two(number: int) -> int:
    """The lowest that is no less."""
    return 1 << (number - 1).bit_length()


def _blocks(lane: Lane, number: int) -> list[int]:
    """The first so many blocks of a lane; after its end the last one again."""
    blocks = [
        block for slot, length in lane.runs for block in range(slot // BLOCK_TOKENS, (slot + length) // BLOCK_TOKENS)
    ]
    return (blocks + [blocks[-1]] * number)[:number]


AttentionInterface.register(ATTENTION, attend)
