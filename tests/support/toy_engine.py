"""A toy stage engine that honours the engine's interface in pure Python: hidden states are running sums of token ids.

Every layer adds its number; the last stage's token is the sum at that position modulo the vocabulary. `expected_tokens`
computes the same in one place.
"""

from __future__ import annotations

import math
import struct
import time

import numpy as np
from numpy.typing import NDArray

from declai.worker.engine import (
    EngineLimits,
    HiddenRows,
    InvalidInput,
    PositionMismatch,
    SampledToken,
    SequenceSpec,
    StageOutput,
    UnknownSequence,
)
from declai.worker.engine.memory.kept_rows import RowsLost

VOCAB = 997
ROW = struct.Struct("<4f")


def expected_tokens(prompt: list[int], num_layers: int, count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append((sum(ids) + sum(range(num_layers))) % VOCAB)
    return ids[len(prompt) :]


class _Sequence:
    def __init__(self, spec: SequenceSpec) -> None:
        self.spec = spec
        self.rows: list[float] = []
        self.num_computed = 0
        self.total = 0.0
        self.num_tokens = 0
        self.is_held = False
        self.kept: list[NDArray[np.uint8]] = []


class ToyEngine:
    """Layers [first, end) of `num_layers`. `delay_s` slows each step down; rows are padded to `row_bytes`.

    `pause_at`: of each sequence so many positions are computed, and no more.
    """

    def __init__(
        self, first: int, end: int, num_layers: int, *, chunk: int = 4, delay_s: float = 0.0, row_bytes: int = ROW.size
    ) -> None:
        self.row_bytes = row_bytes
        self.first, self.end, self.num_layers, self.delay_s = first, end, num_layers, delay_s
        self.limits = EngineLimits(
            max_sequences=8, max_context_tokens=10_000, max_cache_bytes=2**30, prefill_chunk_tokens=chunk
        )
        self.sequences: dict[bytes, _Sequence] = {}
        self.pause_at = 2**31

    @property
    def step_in_s(self) -> float | None:
        return 0.0 if any(map(self._may_run, self.sequences.values())) else None

    def add(self, sequence_id: bytes, spec: SequenceSpec) -> None:
        self.sequences[sequence_id] = _Sequence(spec)

    def feed(self, sequence_id: bytes, first_position: int, payload: bytes | memoryview) -> None:
        if sequence_id not in self.sequences:
            raise UnknownSequence("no such sequence")
        sequence = self.sequences[sequence_id]
        if first_position != len(sequence.rows):
            raise PositionMismatch(f"{first_position} is not {len(sequence.rows)}")
        if self.first == 0:
            new = [float(i) for i in np.frombuffer(payload, "<u4")]
        else:
            if len(payload) % self.row_bytes:
                raise InvalidInput("no whole rows")
            new = [ROW.unpack_from(payload, at)[0] for at in range(0, len(payload), self.row_bytes)]
        if len(sequence.rows) + len(new) > sequence.spec.max_positions or not all(map(math.isfinite, new)):
            raise InvalidInput("too many positions, or not finite")
        sequence.rows += new

    def kept_rows(self, sequence_id: bytes, first: int, end: int) -> NDArray[np.uint8]:
        rows: NDArray[np.uint8] = np.concatenate(self.sequences[sequence_id].kept)[first:end]
        if len(rows) < end - first:
            raise RowsLost("not so many")
        return rows

    def hold(self, sequence_id: bytes, held: bool) -> None:
        if sequence_id in self.sequences:
            self.sequences[sequence_id].is_held = held

    def step(self) -> list[StageOutput]:
        for sequence_id, sequence in self.sequences.items():
            if self._may_run(sequence):
                time.sleep(self.delay_s)
                return self._run(sequence_id, sequence)
        return []

    def _may_run(self, sequence: _Sequence) -> bool:
        return not sequence.is_held and sequence.num_computed < min(len(sequence.rows), self.pause_at)

    def remove(self, sequence_id: bytes) -> None:
        self.sequences.pop(sequence_id, None)

    def _run(self, sequence_id: bytes, sequence: _Sequence) -> list[StageOutput]:
        first = sequence.num_computed
        most = self.limits.prefill_chunk_tokens
        if self.end == self.num_layers:  # a token is drawn after each position from the prompt's last one on
            most = min(most, max(1, sequence.spec.num_prompt_tokens - first))
        rows = sequence.rows[first : min(first + most, self.pause_at)]
        sequence.num_computed += len(rows)
        out = []
        for row in rows:
            if self.first == 0:
                sequence.total += row
                row = sequence.total
            out.append(row + sum(range(self.first, self.end)))
        if self.end < self.num_layers:
            packed = b"".join(ROW.pack(value, 0, 0, 0).ljust(self.row_bytes, b"\0") for value in out)
            array = np.frombuffer(packed, np.uint8).reshape(len(rows), self.row_bytes)
            sequence.kept.append(array)
            return [HiddenRows(sequence_id, first, len(rows), array)]
        spec = sequence.spec
        if sequence.num_computed < spec.num_prompt_tokens:
            return []
        index = sequence.num_tokens
        sequence.num_tokens += 1
        token = round(out[-1]) % VOCAB  # a prompt's rows may have been rounded on their way
        reason = None
        if token in spec.eos_token_ids and not (spec.options and spec.options.ignore_eos):
            reason = "stop"
        elif sequence.num_tokens >= spec.max_tokens:
            reason = "length"
        if reason:
            self.remove(sequence_id)
        return [SampledToken(sequence_id, index, spec.num_prompt_tokens + index, token, reason, -0.5)]
