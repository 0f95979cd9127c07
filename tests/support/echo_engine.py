"""A stage engine without a model: hidden states are the token ids themselves, and the answer repeats the prompt.

Stages, links, commitments and receipts around it are the real ones, and so is the code that decides when to stop.
"""

from __future__ import annotations

import struct
import time

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from declai.worker.engine import HiddenRows, PositionMismatch, SampledToken, SequenceSpec, StageOutput, UnknownSequence
from declai.worker.engine.output import SequenceOutput

ROW = struct.Struct("<4f")


class _Sequence:
    def __init__(self, sequence_id: bytes, spec: SequenceSpec, tokenizer: Tokenizer) -> None:
        self.spec = spec
        self.ids: list[int] = []
        self.num_computed = 0
        self.num_drawn = 0
        self.generation = SequenceOutput(sequence_id, spec, spec.options, tokenizer) if spec.options else None


class EchoEngine:
    """One stage of the echo model. `delay_s` a step; `broken` fails every step; `silent` never makes one."""

    def __init__(self, tokenizer: Tokenizer, is_first: bool, is_last: bool, eos_token_id: int) -> None:
        self.tokenizer, self.is_first, self.is_last, self.eos_token_id = tokenizer, is_first, is_last, eos_token_id
        self.vocab_size = tokenizer.get_vocab_size()
        self.sequences: dict[bytes, _Sequence] = {}
        self.delay_s, self.broken, self.silent = 0.0, False, False
        self.num_steps = 0

    def heal(self) -> None:
        self.delay_s, self.broken, self.silent = 0.0, False, False

    @property
    def step_in_s(self) -> float | None:
        waits = not self.silent and any(s.num_computed < len(s.ids) for s in self.sequences.values())
        return 0.0 if waits else None

    def add(self, sequence_id: bytes, spec: SequenceSpec) -> None:
        self.sequences[sequence_id] = _Sequence(sequence_id, spec, self.tokenizer)

    def kept_rows(self, sequence_id: bytes, first: int, end: int) -> NDArray[np.uint8]:
        packed = b"".join(ROW.pack(value, 0, 0, 0) for value in self.sequences[sequence_id].ids[first:end])
        return np.frombuffer(packed, np.uint8).reshape(end - first, ROW.size)

    def hold(self, sequence_id: bytes, held: bool) -> None:
        pass

    def remove(self, sequence_id: bytes) -> None:
        self.sequences.pop(sequence_id, None)

    def feed(self, sequence_id: bytes, first_position: int, payload: bytes | memoryview) -> None:
        sequence = self.sequences.get(sequence_id)
        if sequence is None:
            raise UnknownSequence("no such sequence")
        if first_position != len(sequence.ids):
            raise PositionMismatch(f"{first_position} is not {len(sequence.ids)}")
        if self.is_first:
            sequence.ids += [int(i) for i in np.frombuffer(payload, "<u4")]
        else:
            sequence.ids += [int(ROW.unpack_from(payload, at)[0]) for at in range(0, len(payload), ROW.size)]

    def step(self) -> list[StageOutput]:
        if self.broken:
            raise RuntimeError("the engine is broken")
        self.num_steps += 1
        time.sleep(self.delay_s)
        # All sessions in one step, as the real engine's batches.
        ready = [(i, s) for i, s in self.sequences.items() if s.num_computed < len(s.ids)]
        return [output for sequence_id, sequence in ready for output in self._run(sequence_id, sequence)]

    def _run(self, sequence_id: bytes, sequence: _Sequence) -> list[StageOutput]:
        first, sequence.num_computed = sequence.num_computed, len(sequence.ids)
        if not self.is_last:
            rows = self.kept_rows(sequence_id, first, sequence.num_computed)
            return [HiddenRows(sequence_id, first, len(rows), rows)]
        num_new = sequence.num_computed + 1 - max(first + 1, sequence.spec.num_prompt_tokens)
        return [self._draw(sequence_id, sequence) for _ in range(num_new) if sequence_id in self.sequences]

    def _draw(self, sequence_id: bytes, sequence: _Sequence) -> SampledToken:
        index, prompt = sequence.num_drawn, sequence.ids[: sequence.spec.num_prompt_tokens]
        sequence.num_drawn += 1
        logits = np.zeros(self.vocab_size, np.float32)
        logits[prompt[index] if index < len(prompt) else self.eos_token_id] = 100.0
        assert sequence.generation is not None
        token = sequence.generation.draw(logits)
        if token.finish_reason is not None:
            self.remove(sequence_id)
        return token
