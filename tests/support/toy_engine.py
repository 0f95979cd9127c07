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


class _Session:
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

    `pause_at`: of each session so many positions are computed, and no more.
    """

    def __init__(
        self, first: int, end: int, num_layers: int, *, chunk: int = 4, delay_s: float = 0.0, row_bytes: int = ROW.size
    ) -> None:
        self.row_bytes = row_bytes
        self.first, self.end, self.num_layers, self.delay_s = first, end, num_layers, delay_s
        self.limits = EngineLimits(
            max_sequences=8, max_context_tokens=10_000, max_cache_bytes=2**30, prefill_chunk_tokens=chunk
        )
        self.sessions: dict[bytes, _Session] = {}
        self.pause_at = 2**31

    @property
    def step_in_s(self) -> float | None:
        return 0.0 if any(map(self._may_run, self.sessions.values())) else None

    def add(self, sequence_id: bytes, spec: SequenceSpec) -> None:
        self.sessions[sequence_id] = _Session(spec)

    def feed(self, sequence_id: bytes, first_position: int, payload: bytes | memoryview) -> None:
        if sequence_id not in self.sessions:
            raise UnknownSequence("no such session")
        session = self.sessions[sequence_id]
        if first_position != len(session.rows):
            raise PositionMismatch(f"{first_position} is not {len(session.rows)}")
        if self.first == 0:
            new = [float(i) for i in np.frombuffer(payload, "<u4")]
        else:
            if len(payload) % self.row_bytes:
                raise InvalidInput("no whole rows")
            new = [ROW.unpack_from(payload, at)[0] for at in range(0, len(payload), self.row_bytes)]
        if len(session.rows) + len(new) > session.spec.max_positions or not all(map(math.isfinite, new)):
            raise InvalidInput("too many positions, or not finite")
        session.rows += new

    def kept_rows(self, sequence_id: bytes, first: int, end: int) -> NDArray[np.uint8]:
        rows: NDArray[np.uint8] = np.concatenate(self.sessions[sequence_id].kept)[first:end]
        if len(rows) < end - first:
            raise RowsLost("not so many")
        return rows

    def hold(self, sequence_id: bytes, held: bool) -> None:
        if sequence_id in self.sessions:
            self.sessions[sequence_id].is_held = held

    def step(self) -> list[StageOutput]:
        for sequence_id, session in self.sessions.items():
            if self._may_run(session):
                time.sleep(self.delay_s)
                return self._run(sequence_id, session)
        return []

    def _may_run(self, session: _Session) -> bool:
        return not session.is_held and session.num_computed < min(len(session.rows), self.pause_at)

    def remove(self, sequence_id: bytes) -> None:
        self.sessions.pop(sequence_id, None)

    def _run(self, sequence_id: bytes, session: _Session) -> list[StageOutput]:
        first = session.num_computed
        most = self.limits.prefill_chunk_tokens
        if self.end == self.num_layers:  # a token is drawn after each position from the prompt's last one on
            most = min(most, max(1, session.spec.num_prompt_tokens - first))
        rows = session.rows[first : min(first + most, self.pause_at)]
        session.num_computed += len(rows)
        out = []
        for row in rows:
            if self.first == 0:
                session.total += row
                row = session.total
            out.append(row + sum(range(self.first, self.end)))
        if self.end < self.num_layers:
            packed = b"".join(ROW.pack(value, 0, 0, 0).ljust(self.row_bytes, b"\0") for value in out)
            array = np.frombuffer(packed, np.uint8).reshape(len(rows), self.row_bytes)
            session.kept.append(array)
            return [HiddenRows(sequence_id, first, len(rows), array)]
        spec = session.spec
        if session.num_computed < spec.num_prompt_tokens:
            return []
        index = session.num_tokens
        session.num_tokens += 1
        token = round(out[-1]) % VOCAB  # a prompt's rows may have been rounded on their way
        reason = None
        if token in spec.eos_token_ids and not (spec.options and spec.options.ignore_eos):
            reason = "stop"
        elif session.num_tokens >= spec.max_tokens:
            reason = "length"
        if reason:
            self.remove(sequence_id)
        return [SampledToken(sequence_id, index, spec.num_prompt_tokens + index, token, reason, -0.5)]
