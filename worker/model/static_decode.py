"""Decode steps in shapes that do not change, so that a GPU can replay one recorded graph.

With one token per sequence, telling the GPU each kernel takes most of a step's time. A replay tells it all at once.

A batch is padded to a number of sequences and of keys, each a power of two. A table of blocks, [lanes, blocks], says
where a sequence's keys lie. The keys are gathered by it, and one attention with a mask takes them all. Recording needs
CUDA; the same steps run anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from declai.worker.model.packed import Pool, Segment
from declai.worker.model.stage import Stage
from declai.worker.model.static_batch import StaticBatch

MAX_SEQUENCES = 32
MIN_KEYS = 256
_NUM_WARM_UPS = 3  # libraries choose their kernels, and take their memory, in the first runs
# What a graph computes may differ from the same step without one by rounding alone.
_MAX_DIFFERENCE = 1e-2

log = logging.getLogger(__name__)


class _Step:
    """The decode step of one shape: its inputs and outputs lie where they lay when it was recorded."""

    def __init__(self, stage: Stage, pool: Pool, num_sequences: int, num_keys: int) -> None:
        self._stage = stage
        self._batch = StaticBatch(pool, num_sequences, num_keys, stage.windows, stage.device, stage.cache_dtype)
        shape = (num_sequences,) if stage.is_first else (num_sequences, stage.architecture.hidden_size)
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
            not self._failed and len(segments) <= MAX_SEQUENCES and all(segment.num_tokens == 1 for segment in segments)
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
