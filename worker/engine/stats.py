"""What an engine has done since it was made: counts for metrics, kept by the engine's thread, read by any.

All that an engine measures is measured here. It changes nothing but through those whom a `Watch` tells.

Times are seconds of `time.perf_counter`, as this stage sees them: waits for other stages are no part of its queue, but
lie between its outputs.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from declai.protocol.failures import FailureCode
from declai.worker.engine.turns.step import Chunk, EngineStep

STEP_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
WAIT_SECONDS = (*STEP_SECONDS, 5.0, 10.0, 25.0, 60.0)

REFUSALS = ("sequences", "cache", FailureCode.INVALID_SEQUENCE)
FAILURES = (FailureCode.INVALID_INPUT, FailureCode.POSITION_MISMATCH, FailureCode.FORWARD_FAILED)
StepPart = Literal["forward", "sample", "rest"]


class Distribution:
    """How many values were at most each bound, and their sum, as a Prometheus histogram wants them."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """(bound, number of values up to it), ending with all."""
        total, found = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self._counts, strict=True):
            total += count
            found.append((bound, total))
        return found


def _waits() -> Distribution:
    return Distribution(WAIT_SECONDS)


def _none_of(names: Sequence[str]) -> Counter[str]:
    """Zero of each: a rate needs a value before the first event."""
    return Counter(dict.fromkeys(names, 0))


@dataclass
class EngineStats:
    """
    Attributes:
        num_reused_tokens: the cache had these of `num_reusable_tokens`, the prompt tokens of sequences that may share.
        step_tokens: of prompts and outputs together, in one forward.
        input_wait_seconds: from input that nothing held up but the steps before it, to its step.
        queue_seconds: from a sequence's first input to its first step.
        first_output_seconds: from a sequence's first input to what follows its prompt: the first token at the last
            stage, the prompt's last hidden states elsewhere.
        between_outputs_seconds: between two outputs of a sequence after that.
        part_seconds: of all steps together, by what took them.
        refused: sequences that were not opened, by why; `cache` is a lack of bytes.
        failed: sequences that an error of their own ended.
    """

    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_reusable_tokens: int = 0
    num_reused_tokens: int = 0
    step_tokens: Distribution = field(default_factory=lambda: Distribution(STEP_TOKENS))
    step_sequences: Distribution = field(default_factory=lambda: Distribution(STEP_TOKENS))
    step_seconds: Distribution = field(default_factory=lambda: Distribution(STEP_SECONDS))
    input_wait_seconds: Distribution = field(default_factory=_waits)
    queue_seconds: Distribution = field(default_factory=_waits)
    first_output_seconds: Distribution = field(default_factory=_waits)
    between_outputs_seconds: Distribution = field(default_factory=_waits)
    part_seconds: dict[StepPart, float] = field(default_factory=lambda: {"forward": 0.0, "sample": 0.0, "rest": 0.0})
    refused: Counter[str] = field(default_factory=lambda: _none_of(REFUSALS))
    failed: Counter[str] = field(default_factory=lambda: _none_of(FAILURES))

    def count_step(self, chunks: Sequence[Chunk], seconds: float) -> None:
        """A step over these chunks; what of its time is in no other part is the rest."""
        num_tokens = sum(chunk.num_tokens for chunk in chunks)
        num_prompt_tokens = sum(chunk.num_prompt_tokens for chunk in chunks)
        self.num_prompt_tokens += num_prompt_tokens
        self.num_output_tokens += num_tokens - num_prompt_tokens
        self.step_tokens.observe(num_tokens)
        self.step_sequences.observe(len(chunks))
        self.step_seconds.observe(seconds)
        rest = self.step_seconds.sum - self.part_seconds["forward"] - self.part_seconds["sample"]
        self.part_seconds["rest"] = max(self.part_seconds["rest"], rest)  # counters never fall, not even by rounding


@dataclass
class _Times:
    num_prompt_tokens: int
    end_fed: int = 0
    first_input_at: float | None = None
    waiting_since: float | None = None
    has_started: bool = False
    last_output_at: float | None = None


class SequenceClock:
    """When the open sequences' input came and their outputs left; what it measures goes into an engine's stats."""

    def __init__(self, stats: EngineStats) -> None:
        self._stats = stats
        self._sequences: dict[bytes, _Times] = {}

    @property
    def num_waiting(self) -> int:
        """Sequences that have had input and no step yet."""
        times = list(self._sequences.values())
        return sum(one.first_input_at is not None and not one.has_started for one in times)

    def open(self, sequence_id: bytes, num_prompt_tokens: int) -> None:
        self._sequences[sequence_id] = _Times(num_prompt_tokens)

    def close(self, sequence_id: bytes) -> None:
        self._sequences.pop(sequence_id, None)

    def feed(self, sequence_id: bytes, end: int, now: float) -> None:
        """Input has come for the positions up to `end`."""
        times = self._sequences[sequence_id]
        times.end_fed = end
        if times.first_input_at is None:
            times.first_input_at = now
        if times.waiting_since is None:
            times.waiting_since = now

    def step(self, chunks: Sequence[Chunk], began: float, ended: float) -> None:
        """These chunks were computed; of sequences that are closed by now nothing is said."""
        for chunk in chunks:
            times = self._sequences.get(chunk.sequence_id)
            if times is None or times.first_input_at is None or times.waiting_since is None:
                continue
            self._stats.input_wait_seconds.observe(began - times.waiting_since)
            if not times.has_started:
                times.has_started = True
                self._stats.queue_seconds.observe(began - times.first_input_at)
            times.waiting_since = ended if chunk.end < times.end_fed else None
            if chunk.end >= times.num_prompt_tokens:
                if times.last_output_at is None:
                    self._stats.first_output_seconds.observe(ended - times.first_input_at)
                else:
                    self._stats.between_outputs_seconds.observe(ended - times.last_output_at)
                times.last_output_at = ended


class Watch:
    """Looks at an engine's clock for it: around its steps, and when input comes."""

    def __init__(
        self, stats: EngineStats, on_step: Callable[[EngineStep, float, float], None], *, counts_processor: bool
    ) -> None:
        """
        Args:
            on_step: told of each step how many seconds it took, and for how many of these it had a processor.
            counts_processor: whether that is less than all; where another device computes, the processor only waits.
        """
        self.sequences = SequenceClock(stats)
        self._stats = stats
        self._on_step = on_step
        self._counts_processor = counts_processor

    @staticmethod
    def now() -> float:
        return time.perf_counter()

    @contextmanager
    def step(self, step: EngineStep) -> Iterator[None]:
        """Around the work of a step."""
        began, processor_began = time.perf_counter(), time.thread_time()
        yield
        ended = time.perf_counter()
        seconds = processor_s = ended - began
        if self._counts_processor:
            processor_s = min(seconds, time.thread_time() - processor_began)
        self._stats.count_step(step.chunks, seconds)
        self.sequences.step(step.chunks, began, ended)
        self._on_step(step, seconds, processor_s)

    @contextmanager
    def part(self, part: Literal["forward", "sample"]) -> Iterator[None]:
        """Around this part of a step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._stats.part_seconds[part] += time.perf_counter() - began

    @contextmanager
    def copying(self, chunk: Chunk) -> Iterator[None]:
        """Around taking over what was computed before."""
        began = time.perf_counter()
        yield
        self._stats.num_reused_tokens += chunk.num_prompt_tokens
        self.sequences.step([chunk], began, time.perf_counter())
