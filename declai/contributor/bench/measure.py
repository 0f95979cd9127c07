"""Steps of a real engine, timed: decode with many sequences, and prompts in chunks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from declai.protocol.options import GenerationOptions, Sampling
from declai.worker.engine import Engine, EngineLimits, HiddenRows, SampledToken, SequenceFailed, SequenceSpec
from declai.worker.model.stage import Stage

NUMS_SEQUENCES = (1, 2, 4, 8, 16, 32)
CHUNKS = (32, 64, 128, 256, 512)
PROMPT_TOKENS = 64
GREEDY = GenerationOptions(sampling=Sampling(temperature=0), ignore_eos=True)
Payload = torch.Tensor | list[int]


@dataclass(frozen=True)
class Timing:
    """A step's median time. `num_tokens` are computed in it, for `num_sequences`; `num_cached` were before them."""

    num_sequences: int
    num_tokens: int
    num_cached: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.seconds


class Bench:
    """One stage and its engines. `tick` is called after each timing."""

    def __init__(self, stage: Stage, *, quick: bool, tick: Callable[[], None]) -> None:
        self._stage = stage
        self._tick = tick
        self._num_steps = 4 if quick else 16
        self._num_chunks = 2 if quick else 5
        longest = stage.architecture.max_positions or 2**20
        self.chunks = [chunk for chunk in CHUNKS if chunk < longest][: 3 if quick else None]
        self.nums_sequences = NUMS_SEQUENCES if PROMPT_TOKENS + self._num_steps + 2 <= longest else ()

    @property
    def num_timings(self) -> int:
        return len(self.nums_sequences) + len(self.chunks)

    def decode(self) -> list[Timing]:
        """A token of each of so many sequences in one step."""
        return [self._decode(number) for number in self.nums_sequences]

    def prefill(self) -> list[Timing]:
        """A chunk of one prompt in a step, while nobody decodes."""
        return [self._prefill(chunk) for chunk in self.chunks]

    def _decode(self, num_sequences: int) -> Timing:
        num_tokens = self._num_steps + 2
        engine = self._engine(num_sequences, PROMPT_TOKENS + num_tokens, num_sequences * PROMPT_TOKENS)
        names = [bytes([number]) for number in range(num_sequences)]
        for name in names:
            engine.add(name, self._spec(PROMPT_TOKENS, num_tokens))
            engine.feed(name, 0, self._input(PROMPT_TOKENS))
        while engine.has_work:
            _check(engine.step())
        seconds = []
        for step in range(self._num_steps + 1):
            inputs = [(name, self._input(1)) for name in names]
            began = time.perf_counter()
            for name, payload in inputs:
                engine.feed(name, PROMPT_TOKENS + step, payload)
            while engine.has_work:  # a stage that does not pack takes a step for each
                _check(engine.step())
            seconds.append(time.perf_counter() - began)
        self._tick()
        cached = num_sequences * (PROMPT_TOKENS + self._num_steps // 2)
        return Timing(num_sequences, num_sequences, cached, statistics.median(seconds[1:]))

    def _prefill(self, num_tokens: int) -> Timing:
        engine = self._engine(1, num_tokens + 1, num_tokens)
        seconds = []
        for number in range(self._num_chunks + 1):
            name, inputs = bytes([number]), self._input(num_tokens)
            engine.add(name, self._spec(num_tokens, 1))
            began = time.perf_counter()
            engine.feed(name, 0, inputs)
            _check(engine.step())
            seconds.append(time.perf_counter() - began)
            engine.remove(name)
        self._tick()
        return Timing(1, num_tokens, 0, statistics.median(seconds[1:]))

    def _engine(self, max_sequences: int, max_tokens: int, chunk: int) -> Engine:
        per_sequence = 2 * (max_tokens + 16) * (self._stage.bytes_per_token + 4 * self._stage.architecture.hidden_size)
        return Engine(self._stage, EngineLimits(max_sequences, max_tokens, max_sequences * per_sequence, chunk, chunk))

    def _spec(self, num_prompt_tokens: int, max_tokens: int) -> SequenceSpec:
        return SequenceSpec(num_prompt_tokens, max_tokens, GREEDY if self._stage.is_last else None)

    def _input(self, num_tokens: int) -> Payload:
        stage = self._stage
        if stage.is_first:
            ids: list[int] = torch.randint(stage.architecture.vocab_size, (num_tokens,)).tolist()
            return ids
        return torch.randn(num_tokens, stage.architecture.hidden_size).to(stage.dtype)


def _check(outputs: Sequence[HiddenRows | SampledToken | SequenceFailed]) -> None:
    for output in outputs:
        if isinstance(output, SequenceFailed):
            raise output.error
