"""The engine of one stage. `step()` shows the whole: schedule, run, hand out."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from declai.protocol.sampling import Logits
from declai.worker.engine.checks import check_spec
from declai.worker.engine.errors import AtCapacity, EngineError, ForwardFailed, InvalidSequence, UnknownSequence
from declai.worker.engine.memory.cache import CacheManager
from declai.worker.engine.memory.kept_rows import JobRows, KeptRows, RowsLost
from declai.worker.engine.memory.prefix import Hit
from declai.worker.engine.output import SequenceOutput
from declai.worker.engine.runner import Payload, Runner, as_bytes
from declai.worker.engine.sequence import (
    EngineLimits,
    HiddenRows,
    SampledToken,
    SequenceFailed,
    SequenceSpec,
    StageOutput,
)
from declai.worker.engine.stats import EngineStats, Watch
from declai.worker.engine.turns.scheduler import Scheduler
from declai.worker.engine.turns.step import Chunk, Wait
from declai.worker.limits import KEPT_ROWS_BYTES
from declai.worker.model.layout import BLOCK_TOKENS
from declai.worker.model.packed import Pool
from declai.worker.model.stage import Stage

# A hit's rows go to the next stage in as few pieces as links take well: they come faster than a forward makes them.
MAX_PIECE_BYTES = 2**24


class Engine:
    """Runs all sequences of one stage, in one forward a step. To be used from one thread.

    An error about one sequence closes that sequence and leaves the others as they were.
    """

    def __init__(
        self, stage: Stage, limits: EngineLimits, tokenizer: Tokenizer | None = None, kept_rows: KeptRows | None = None
    ) -> None:
        """
        Args:
            tokenizer: needed at the last stage for sequences with stop strings.
            kept_rows: where hidden states that were handed out are kept; may be shared with engines of the same thread.
        """
        self.limits = limits
        self.stats = EngineStats()
        self._stage = stage
        self._tokenizer = tokenizer
        self._reuses = limits.prefix_reuse and stage.packs
        self._kept_rows = KeptRows(KEPT_ROWS_BYTES) if kept_rows is None else kept_rows
        layout = stage.layout(limits.prefill_chunk_tokens) if stage.packs else None
        self._cache = CacheManager(limits.max_sequences, limits.max_cache_bytes, layout)
        self._scheduler = Scheduler(
            limits.prefill_chunk_tokens,
            limits.mixed_prefill_tokens,
            limits.max_sequences if stage.packs else 1,
            samples=stage.is_last,
        )
        self._watch = Watch(self.stats, self._scheduler.took, counts_processor=stage.device.type == "cpu")
        pool = Pool(layout, self._cache.num_blocks * BLOCK_TOKENS) if layout else None
        self._runner = Runner(stage, limits.prefill_chunk_tokens, pool, records_steps=limits.cuda_graphs)
        self._sequences: dict[bytes, SequenceSpec] = {}
        self._outputs: dict[bytes, SequenceOutput] = {}
        self._rows: dict[bytes, JobRows] = {}

    @property
    def num_sequences(self) -> int:
        return len(self._sequences)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for their first step."""
        return self._watch.sequences.num_waiting

    @property
    def used_cache_bytes(self) -> int:
        return self._cache.used_bytes

    @property
    def num_cache_blocks(self) -> tuple[int, int]:
        """(used, free) blocks of keys and values; none where sequences have caches of their own."""
        return self._cache.num_used_blocks, self._cache.num_free_blocks

    @property
    def has_work(self) -> bool:
        """Whether input waits, so that `step` would run a forward."""
        return self._scheduler.has_waiting

    @property
    def step_in_s(self) -> float | None:
        """Seconds until a step is worth it: more may come that goes with what waits. None while nothing waits."""
        return self._scheduler.wait_s(self._watch.now())

    @property
    def max_context_tokens(self) -> int:
        """The longest prompt and output together: the engine's bound or the model's, whichever is lower."""
        bounds = (self.limits.max_context_tokens, self._stage.architecture.max_positions)
        return min(bound for bound in bounds if bound is not None)

    def sequence_bytes(self, num_prompt_tokens: int, max_positions: int) -> int:
        """The cache that such a sequence would reserve."""
        return self._cache.needed_bytes(self._runner.bytes_besides(num_prompt_tokens, max_positions), max_positions)

    def __contains__(self, sequence_id: bytes) -> bool:
        return sequence_id in self._sequences

    def add(self, sequence_id: bytes, spec: SequenceSpec) -> None:
        """Open a sequence and reserve the most memory it can need.

        Raises:
            InvalidSequence: this stage can never run it.
            AtCapacity: there is no room now.
        """
        try:
            self._admit(sequence_id, spec)
        except (AtCapacity, InvalidSequence) as error:
            self.stats.refused[error.reason] += 1
            raise
        self._sequences[sequence_id] = spec
        self._watch.sequences.open(sequence_id, spec.num_prompt_tokens)
        self._scheduler.add(
            sequence_id,
            spec.num_prompt_tokens,
            spec.max_positions,
            weight=spec.weight,
            num_stages=spec.num_stages if self._stage.is_first else 1,
        )
        self._runner.open(sequence_id, spec.max_positions, self._cache.lanes(sequence_id))
        if spec.options is not None:
            self._outputs[sequence_id] = SequenceOutput(sequence_id, spec, spec.options, self._tokenizer)

    def feed(self, sequence_id: bytes, first_position: int, payload: Payload) -> None:
        """Give a sequence its next input: token ids at the first stage, hidden states at the others (see Runner.parse).

        Raises:
            UnknownSequence: no such sequence is open.
            PositionMismatch, InvalidInput: the input is wrong; the sequence is closed.
        """
        if sequence_id not in self._sequences:
            raise UnknownSequence(f"sequence {sequence_id.hex()} is not open")
        try:
            inputs = self._runner.parse(payload)
            self._scheduler.check_feed(sequence_id, first_position, len(inputs))
        except EngineError as error:
            self.stats.failed[error.code] += 1
            self.remove(sequence_id)
            raise
        if self._reuses and self._sequences[sequence_id].cache_salt:
            self._cache.feed(sequence_id, as_bytes(inputs).data.cast("B"), len(inputs))
            num_prompt_tokens = self._sequences[sequence_id].num_prompt_tokens
            self.stats.num_reusable_tokens += max(0, min(len(inputs), num_prompt_tokens - first_position))
        self._runner.put(sequence_id, inputs)
        now = self._watch.now()
        self._scheduler.feed(sequence_id, len(inputs), now)
        self._watch.sequences.feed(sequence_id, first_position + len(inputs), now)

    def kept_rows(self, sequence_id: bytes, first: int, end: int) -> NDArray[np.uint8]:
        """What an open sequence handed out at positions [first, end), uint8 [positions, bytes per row], once more.

        Raises RowsLost unless all of it is kept; the last stage keeps none.
        """
        rows = self._rows.get(sequence_id)
        if rows is None:
            raise RowsLost(f"sequence {sequence_id.hex()} keeps no rows here")
        return rows.read(first, end)

    def hold(self, sequence_id: bytes, held: bool) -> None:
        """Compute nothing for a sequence, whatever it is fed, until it is held no more: nobody takes its output now."""
        self._scheduler.hold(sequence_id, held)

    def step(self) -> list[StageOutput]:
        """Take over what was computed before, run the next forward if it is time, and hand out what came of both (a
        prompt's early chunks make no token)."""
        outputs = self._reuse()
        step = self._scheduler.next_step(self._watch.now())
        if isinstance(step, Wait):
            self.check_integrity()
            return outputs
        with self._watch.step(step):
            outputs += self._run(step.chunks, self._runner.take(step.chunks))
        self._close_finished(outputs)
        return outputs

    def remove(self, sequence_id: bytes) -> None:
        """Close a sequence and free all it held; does nothing when it is not open."""
        self._sequences.pop(sequence_id, None)
        self._outputs.pop(sequence_id, None)
        self._rows.pop(sequence_id, None)
        self._watch.sequences.close(sequence_id)
        self._scheduler.remove(sequence_id)
        self._runner.close(sequence_id)
        self._cache.free(sequence_id)

    def check_integrity(self) -> None:
        """Hold the owners' books against each other; run whenever the engine is idle."""
        sequence_ids = set(self._sequences)
        self._cache.check_integrity(sequence_ids)
        self._scheduler.check_integrity()
        self._runner.check_integrity(sequence_ids)

    def _close_finished(self, outputs: Sequence[StageOutput]) -> None:
        for output in outputs:
            if isinstance(output, SampledToken) and output.finish_reason is not None:
                self.remove(output.sequence_id)

    def _reuse(self) -> list[StageOutput]:
        """Copy what others computed of the same input, and pass on what came of it then."""
        outputs = list[StageOutput]()
        for sequence_id, end in self._scheduler.skippable() if self._reuses else ():
            hit = self._cache.find(sequence_id, end)
            if hit is None:
                continue
            try:
                rows = None if hit.rows is None else hit.rows.read(hit.first_position, hit.num_tokens)
            except RowsLost:  # what the next stage needs is computed then
                continue
            chunk = self._scheduler.skip(sequence_id, hit.num_tokens)
            try:
                outputs += self._take_over(chunk, hit, rows)
            except Exception as error:  # out of memory, say
                outputs.append(self._fail(chunk, error))
        return outputs

    def _take_over(self, chunk: Chunk, hit: Hit, rows: NDArray[np.uint8] | None) -> list[HiddenRows]:
        with self._watch.copying(chunk):
            self._runner.take([chunk])
            self._runner.reuse(chunk, hit)
            self._cache.copied(chunk.sequence_id, hit)
        if rows is None:
            return []
        most = max(1, MAX_PIECE_BYTES // self._stage.bytes_per_row)
        firsts = range(chunk.first_position, chunk.end, most)
        pieces = [rows[first - chunk.first_position :][:most] for first in firsts]
        return [self._hand_out(chunk.sequence_id, first, piece) for first, piece in zip(firsts, pieces, strict=True)]

    def _run(self, chunks: Sequence[Chunk], inputs: torch.Tensor) -> list[StageOutput]:
        """Compute chunks. When that fails, each by itself: one request must not end the others."""
        try:
            return self._sample(chunks, inputs) if self._stage.is_last else self._pass_on(chunks, inputs)
        except Exception as error:  # whatever a model's own code raises
            if len(chunks) > 1:
                pieces = torch.split(inputs, [chunk.num_tokens for chunk in chunks])
                pairs = zip(chunks, pieces, strict=True)
                return [output for chunk, piece in pairs for output in self._run([chunk], piece)]
            return [self._fail(chunks[0], error)]

    def _pass_on(self, chunks: Sequence[Chunk], inputs: torch.Tensor) -> list[StageOutput]:
        with self._watch.part("forward"):
            rows = self._runner.run(chunks, inputs)
        outputs, begin = list[StageOutput](), 0
        for chunk in chunks:
            self._cache.computed(chunk.sequence_id, chunk.end)
            own = rows[begin : begin + chunk.num_tokens]
            outputs.append(self._hand_out(chunk.sequence_id, chunk.first_position, own))
            begin += chunk.num_tokens
        return outputs

    def _hand_out(self, sequence_id: bytes, first_position: int, rows: NDArray[np.uint8]) -> HiddenRows:
        self._rows[sequence_id].append(first_position, rows)
        return HiddenRows(sequence_id, first_position, len(rows), rows)

    def _sample(self, chunks: Sequence[Chunk], inputs: torch.Tensor) -> list[StageOutput]:
        with self._watch.part("forward"):
            rows = self._runner.run_logits(chunks, inputs)
        outputs = list[StageOutput]()
        with self._watch.part("sample"):
            for chunk, logits in zip(chunks, rows, strict=True):
                self._cache.computed(chunk.sequence_id, chunk.end)
                if chunk.end >= self._sequences[chunk.sequence_id].num_prompt_tokens:
                    outputs.append(self._draw(chunk, logits))
        return outputs

    def _draw(self, chunk: Chunk, logits: Logits) -> StageOutput:
        try:
            return self._outputs[chunk.sequence_id].draw(logits)
        except Exception as error:  # else the whole step would run again, and draw for the others a second time
            return self._fail(chunk, error)

    def _fail(self, chunk: Chunk, error: Exception) -> SequenceFailed:
        self.stats.failed[ForwardFailed.code] += 1
        self._cache.free(chunk.sequence_id, keep=False)
        self.remove(chunk.sequence_id)
        failure = ForwardFailed(f"positions from {chunk.first_position} on: {type(error).__name__}: {error}")
        return SequenceFailed(chunk.sequence_id, failure)

    def _admit(self, sequence_id: bytes, spec: SequenceSpec) -> None:
        if sequence_id in self._sequences:
            raise InvalidSequence(f"sequence {sequence_id.hex()} is already open")
        check_spec(spec, self._stage, self.max_context_tokens, has_tokenizer=self._tokenizer is not None)
        bytes_besides = self._runner.bytes_besides(spec.num_prompt_tokens, spec.max_positions)
        salt = spec.cache_salt if self._reuses else b""
        rows = None if self._stage.is_last else self._kept_rows.open(self._stage.bytes_per_row)
        self._cache.allocate(sequence_id, bytes_besides, spec.max_positions, salt, rows)
        if rows is not None:
            self._rows[sequence_id] = rows
