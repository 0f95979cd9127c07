"""A scheduler at a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

from declai.worker.engine.turns.scheduler import Scheduler
from declai.worker.engine.turns.step import Chunk, EngineStep


class ClockedScheduler(Scheduler):
    """It asks `clock` itself; by default no time passes."""

    def __init__(
        self,
        max_prefill_tokens: int,
        max_mixed_prefill_tokens: int,
        max_sequences: int,
        *,
        samples: bool,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__(max_prefill_tokens, max_mixed_prefill_tokens, max_sequences, samples=samples)
        self._clock = clock

    def come(self, sequence_id: bytes, num_tokens: int) -> None:
        self.feed(sequence_id, num_tokens, self._clock())

    @property
    def step_in_s(self) -> float | None:
        return self.wait_s(self._clock())

    def step(self) -> list[Chunk]:
        """The next step's chunks; none while it is better to wait."""
        step = self.next_step(self._clock())
        return step.chunks if isinstance(step, EngineStep) else []

    def ran(self, chunks: list[Chunk], seconds: float, processor_s: float | None = None) -> None:
        """A step took so long; it had a processor all the time unless told otherwise."""
        self.took(EngineStep(chunks), seconds, seconds if processor_s is None else processor_s)
