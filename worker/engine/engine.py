"""The engine of one stage. `step()` shows the whole: schedule, run, hand out."""

import time
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer

from worker.engine.cache import CacheManager
from worker.engine.errors import AtCapacity, EngineError, ForwardFailed, InvalidSession, UnknownSession
from worker.engine.generation import Generation
from worker.engine.prefix import Hit
from worker.engine.runner import Payload, Runner, as_bytes
from worker.engine.scheduler import Chunk, Scheduler
from worker.engine.session import EngineLimits, HiddenRows, SampledToken, SessionFailed, SessionSpec, StageOutput
from worker.engine.stats import EngineStats, SessionClock
from worker.model.layout import BLOCK_TOKENS
from worker.model.packed import Pool
from worker.model.stage import Stage
from worker.sampling import Logits

# A hit's rows go to the next stage in as few pieces as links take well: they come faster than a forward makes them.
MAX_PIECE_BYTES = 2**24


class Engine:
    """Runs all sessions of one stage, in one forward a step. To be used from one thread.

    An error about one session closes that session and leaves the others as they were.
    """

    def __init__(self, stage: Stage, limits: EngineLimits, tokenizer: Tokenizer | None = None) -> None:
        """`tokenizer` is needed at the last stage for sessions with stop strings."""
        self.limits = limits
        self.stats = EngineStats()
        self._clock = SessionClock(self.stats)
        self._stage = stage
        self._tokenizer = tokenizer
        self._reuses = limits.prefix_reuse and stage.packs
        keeps_hidden = self._reuses and not stage.is_last  # the next stage needs them, computed or not
        layout = stage.layout(limits.prefill_chunk_tokens, keeps_hidden=keeps_hidden) if stage.packs else None
        self._cache = CacheManager(limits.max_sessions, limits.max_cache_bytes, layout)
        self._scheduler = Scheduler(
            limits.prefill_chunk_tokens,
            limits.mixed_prefill_tokens,
            limits.max_sessions if stage.packs else 1,
            samples=stage.is_last,
        )
        pool = Pool(layout, self._cache.num_blocks * BLOCK_TOKENS) if layout else None
        self._runner = Runner(stage, limits.prefill_chunk_tokens, pool, records_steps=limits.cuda_graphs)
        self._sessions: dict[bytes, SessionSpec] = {}
        self._generations: dict[bytes, Generation] = {}

    @property
    def num_sessions(self) -> int:
        return len(self._sessions)

    @property
    def num_waiting(self) -> int:
        """Sessions that wait for their first step."""
        return self._clock.num_waiting

    @property
    def used_cache_bytes(self) -> int:
        return self._cache.used_bytes

    @property
    def num_cache_blocks(self) -> tuple[int, int]:
        """(used, free) blocks of keys and values; none where sessions have caches of their own."""
        return self._cache.num_used_blocks, self._cache.num_free_blocks

    @property
    def has_work(self) -> bool:
        """Whether input waits, so that `step` would run a forward."""
        return self._scheduler.has_waiting

    @property
    def step_in_s(self) -> float | None:
        """Seconds until a step is worth it: more may come that goes with what waits. None while nothing waits."""
        return self._scheduler.step_in_s

    @property
    def max_context_tokens(self) -> int:
        """The longest prompt and output together: the engine's bound or the model's, whichever is lower."""
        bounds = (self.limits.max_context_tokens, self._stage.architecture.max_positions)
        return min(bound for bound in bounds if bound is not None)

    def session_bytes(self, num_prompt_tokens: int, max_positions: int) -> int:
        """The cache that such a session would reserve."""
        return self._cache.needed_bytes(self._runner.bytes_besides(num_prompt_tokens, max_positions), max_positions)

    def __contains__(self, session_id: bytes) -> bool:
        return session_id in self._sessions

    def add(self, session_id: bytes, spec: SessionSpec) -> None:
        """Open a session and reserve the most memory it can need.

        Raises:
            InvalidSession: this stage can never run it.
            AtCapacity: there is no room now.
        """
        try:
            self._admit(session_id, spec)
        except (AtCapacity, InvalidSession) as error:
            self.stats.refused[error.reason] += 1
            raise
        self._sessions[session_id] = spec
        self._clock.open(session_id, spec.num_prompt_tokens)
        self._scheduler.add(
            session_id,
            spec.num_prompt_tokens,
            spec.max_positions,
            weight=spec.weight,
            num_stages=spec.num_stages if self._stage.is_first else 1,
        )
        self._runner.open(session_id, spec.max_positions, self._cache.lanes(session_id))
        if spec.sampling is not None:
            self._generations[session_id] = Generation(session_id, spec, spec.sampling, self._tokenizer)

    def feed(self, session_id: bytes, first_position: int, payload: Payload) -> None:
        """Give a session its next input: token ids at the first stage, hidden states at the others (see Runner.parse).

        Raises:
            UnknownSession: no such session is open.
            PositionMismatch, InvalidInput: the input is wrong; the session is closed.
        """
        if session_id not in self._sessions:
            raise UnknownSession(f"session {session_id.hex()} is not open")
        try:
            inputs = self._runner.parse(payload)
            self._scheduler.check_feed(session_id, first_position, len(inputs))
        except EngineError as error:
            self.stats.failed[error.code] += 1
            self.remove(session_id)
            raise
        if self._reuses and self._sessions[session_id].cache_salt:
            self._cache.feed(session_id, as_bytes(inputs).data.cast("B"), len(inputs))
            num_prompt_tokens = self._sessions[session_id].num_prompt_tokens
            self.stats.num_reusable_tokens += max(0, min(len(inputs), num_prompt_tokens - first_position))
        self._runner.put(session_id, inputs)
        self._scheduler.feed(session_id, len(inputs))
        self._clock.feed(session_id, first_position + len(inputs), time.perf_counter())

    def hold(self, session_id: bytes, held: bool) -> None:
        """Compute nothing for a session, whatever it is fed, until it is held no more: nobody takes its output now."""
        self._scheduler.hold(session_id, held)

    def step(self) -> list[StageOutput]:
        """Take over what was computed before, run the next forward over all else that waits, and return what came of
        both (a prompt's early chunks make no token)."""
        outputs = self._reuse() if self._reuses else []
        chunks = self._scheduler.schedule()
        if not chunks:
            self.check_integrity()
            return outputs
        began, had_processor_s = time.perf_counter(), time.thread_time()
        outputs += self._run(chunks, self._runner.take(chunks))
        ended = time.perf_counter()
        self.stats.count_step(chunks, ended - began)
        self._clock.step(chunks, began, ended)
        seconds = processor_s = ended - began
        if self._stage.device.type == "cpu":
            processor_s = min(seconds, time.thread_time() - had_processor_s)
        self._scheduler.note_time(chunks, seconds, processor_s)
        for output in outputs:
            if isinstance(output, SampledToken) and output.finish_reason is not None:
                self.remove(output.session_id)
        return outputs

    def remove(self, session_id: bytes) -> None:
        """Close a session and free all it held; does nothing when it is not open."""
        self._sessions.pop(session_id, None)
        self._generations.pop(session_id, None)
        self._clock.close(session_id)
        self._scheduler.remove(session_id)
        self._runner.close(session_id)
        self._cache.free(session_id)

    def check_integrity(self) -> None:
        """Hold the owners' books against each other; run whenever the engine is idle."""
        session_ids = set(self._sessions)
        self._cache.check_integrity(session_ids)
        self._scheduler.check_integrity()
        self._runner.check_integrity(session_ids)

    def _reuse(self) -> list[StageOutput]:
        """Copy what others computed of the same input, and pass on what came of it then."""
        outputs = list[StageOutput]()
        for session_id, end in self._scheduler.skippable():
            hit = self._cache.find(session_id, end)
            if hit is not None:
                chunk = self._scheduler.skip(session_id, hit.num_tokens)
                try:
                    outputs += self._take_over(chunk, hit)
                except Exception as error:  # out of memory, say
                    outputs.append(self._fail(chunk, error))
        return outputs

    def _take_over(self, chunk: Chunk, hit: Hit) -> list[HiddenRows]:
        began = time.perf_counter()
        self._runner.take([chunk])
        self._runner.reuse(chunk, hit)
        self._cache.copied(chunk.session_id, hit)
        self.stats.num_reused_tokens += chunk.num_prompt_tokens
        self._clock.step([chunk], began, time.perf_counter())
        if self._stage.is_last:
            return []
        rows, most = self._runner.kept_rows(chunk), max(1, MAX_PIECE_BYTES // self._stage.bytes_per_row)
        pieces = [rows[begin : begin + most] for begin in range(0, len(rows), most)]
        firsts = range(chunk.first_position, chunk.end, most)
        return [
            HiddenRows(chunk.session_id, first, len(piece), piece) for first, piece in zip(firsts, pieces, strict=True)
        ]

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
        with self.stats.timed("forward"):
            rows = self._runner.run(chunks, inputs)
        outputs, begin = list[StageOutput](), 0
        for chunk in chunks:
            self._cache.computed(chunk.session_id, chunk.end)
            own = rows[begin : begin + chunk.num_tokens]
            outputs.append(HiddenRows(chunk.session_id, chunk.first_position, chunk.num_tokens, own))
            begin += chunk.num_tokens
        return outputs

    def _sample(self, chunks: Sequence[Chunk], inputs: torch.Tensor) -> list[StageOutput]:
        with self.stats.timed("forward"):
            rows = self._runner.run_logits(chunks, inputs)
        outputs = list[StageOutput]()
        with self.stats.timed("sample"):
            for chunk, logits in zip(chunks, rows, strict=True):
                self._cache.computed(chunk.session_id, chunk.end)
                if chunk.end >= self._sessions[chunk.session_id].num_prompt_tokens:
                    outputs.append(self._draw(chunk, logits))
        return outputs

    def _draw(self, chunk: Chunk, logits: Logits) -> StageOutput:
        try:
            return self._generations[chunk.session_id].draw(logits)
        except Exception as error:  # else the whole step would run again, and draw for the others a second time
            return self._fail(chunk, error)

    def _fail(self, chunk: Chunk, error: Exception) -> SessionFailed:
        self.stats.failed[ForwardFailed.code] += 1
        self._cache.free(chunk.session_id, keep=False)
        self.remove(chunk.session_id)
        failure = ForwardFailed(f"positions from {chunk.first_position} on: {type(error).__name__}: {error}")
        return SessionFailed(chunk.session_id, failure)

    def _admit(self, session_id: bytes, spec: SessionSpec) -> None:
        if session_id in self._sessions:
            raise InvalidSession(f"session {session_id.hex()} is already open")
        self._check_spec(spec)
        bytes_besides = self._runner.bytes_besides(spec.num_prompt_tokens, spec.max_positions)
        salt = spec.cache_salt if self._reuses else b""
        self._cache.allocate(session_id, bytes_besides, spec.max_positions, salt)

    def _check_spec(self, spec: SessionSpec) -> None:
        if spec.num_prompt_tokens < 1 or spec.max_tokens < 1:
            raise InvalidSession(
                f"{spec.num_prompt_tokens} prompt and {spec.max_tokens} output tokens; both must be >= 1"
            )
        if spec.num_prompt_tokens + spec.max_tokens > self.max_context_tokens:
            raise InvalidSession(
                f"{spec.num_prompt_tokens} prompt and {spec.max_tokens} output tokens; "
                f"the context holds {self.max_context_tokens}"
            )
        if self._stage.is_last != (spec.sampling is not None):
            raise InvalidSession("the last stage needs sampling parameters, and no other takes them")
        if spec.sampling is None:
            return
        vocab_size = self._stage.architecture.vocab_size
        token_ids = (*spec.prompt_token_ids, *spec.sampling.logit_bias)
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < vocab_size:
            raise InvalidSession(f"a prompt token or logit bias is outside the vocabulary of {vocab_size}")
        if spec.sampling.needs_prompt and len(spec.prompt_token_ids) != spec.num_prompt_tokens:
            raise InvalidSession("a repetition penalty needs the token ids of the whole prompt at the last stage")
        if spec.stop and self._tokenizer is None:
            raise InvalidSession("stop strings need the model's tokenizer, which this engine was not given")
