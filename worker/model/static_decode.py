"""Decode steps in shapes that do not change, so that a GPU can replay one recorded graph instead of being told each
kernel anew: with a token per session that telling is most of a step's time.

A batch is padded to a number of sessions and of keys, each a power of two. Every session's keys are gathered by index
into one tensor, and one attention with a mask takes them all. Recording needs CUDA; the same steps run anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from worker.model.packed import Pool, Segment, attention_of, window_of

if TYPE_CHECKING:
    from worker.model.stage import Stage

ATTENTION = "declai_static"
MAX_SESSIONS = 32
MIN_KEYS = 256
_NUM_WARM_UPS = 3  # libraries choose their kernels, and take their memory, in the first runs

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
        self._key_positions = torch.arange(num_keys, device=device)
        self._key_slots = torch.zeros(num_sessions, num_keys, dtype=torch.long, device=device)
        self._slots = torch.zeros(num_sessions, dtype=torch.long, device=device)

    def fill(self, segments: Sequence[Segment]) -> None:
        """Make it about these. What pads it writes to the pool's spare slot, and has no key but what is there."""
        positions = torch.zeros(len(self.positions), dtype=torch.long)
        slots = torch.full((len(positions), 1), self.pool.num_slots)
        key_slots = slots.repeat(1, len(self._key_positions))
        for row, segment in enumerate(segments):
            found = torch.cat([torch.arange(slot, slot + length) for slot, length in segment.runs])
            positions[row], slots[row] = segment.first_position, found[-1]
            # Places without a key are masked, but 0 times NaN is NaN: they show what is surely written.
            key_slots[row] = found[-1]
            key_slots[row, : len(found)] = found
        self.positions.copy_(positions)
        self._slots.copy_(slots[:, 0])
        self._key_slots.copy_(key_slots)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.pool.write(layer_idx, self._slots, key_states.to(self.dtype), value_states.to(self.dtype))
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def read(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [sessions, heads, keys, head_dim]."""
        return self.pool.read_at(layer, self._key_slots)

    def mask(self, window: int | None) -> torch.Tensor:
        """Which keys are a session's own, and not beyond the window: [sessions, 1, 1, keys]."""
        positions = self.positions.unsqueeze(1)
        allowed = self._key_positions <= positions
        if window is not None:
            allowed &= self._key_positions > positions - window
        return allowed[:, None, None]


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
    keys, values = batch.read(layer)
    mask = batch.mask(window_of(batch, layer, sliding_window))
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
        self._batch.fill(segments)

    def run(self) -> torch.Tensor:
        return self._stage.forward_static(self._inputs, self._batch)

    def replay(self, memory: Any) -> torch.Tensor:
        """As `run`, by a graph; recorded when first called. Valid until the next call of any step with that memory."""
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_NUM_WARM_UPS):
                    self.run()
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(graph, pool=memory):
                self._outputs = self.run()
            self._graph = graph
        self._graph.replay()
        assert self._outputs is not None
        return self._outputs


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
            return step.run()


def _power_of_two(number: int) -> int:
    """The lowest that is no less."""
    return 1 << (number - 1).bit_length()


AttentionInterface.register(ATTENTION, attend)
