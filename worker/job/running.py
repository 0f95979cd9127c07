"""One job at one stage, from `ready` to its end: who may say what when, and what is committed to. No sockets, no clock.

Input positions must continue without gap or repeat; whatever does not fit ends this job, with a code, and nothing else.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from pydantic import ValidationError

from declai.links.errors import LinkError
from declai.protocol import wire
from declai.protocol.commitments import Commitment, Later, StageCommitment, output_record
from declai.protocol.errors import BadRows, CommitmentError
from declai.protocol.failures import FailureCode
from declai.protocol.grammar import Constraint
from declai.protocol.jobs import StageJob
from declai.protocol.peers import Peer
from declai.protocol.ring import MAX_EXCHANGES, Replacement, Replica, RingView
from declai.protocol.rows import decode_rows, formats_of
from declai.worker.engine import EngineError, HiddenRows, SampledToken, SequenceFailed, StageOutput
from declai.worker.engine.memory.kept_rows import RowsLost
from declai.worker.job.downstream import Downstream
from declai.worker.job.ends import ForeignFrame, JobEnd, JobFailed
from declai.worker.job.positions import Mark, PositionGap, Positions
from declai.worker.job.stage_engine import StageEngine, StageIdentity, sequence_spec
from declai.worker.job.upstream import Upstream

log = logging.getLogger(__name__)


class RunningJob:
    """State of one job. `end` is set once, by whatever ends it; after that nothing may be called."""

    def __init__(
        self,
        job: StageJob,
        engine: StageEngine,
        identity: StageIdentity,
        send: Callable[[Peer, wire.Frame], None],
        constraint: Constraint | None = None,
        later: Later = lambda action, num_bytes: action(),
    ) -> None:
        """Add the job to the engine. Raises EngineError when the engine will not have it.

        `constraint`: the compiled grammar of the job's options, when it has one; `later` hashes for the commitment.
        """
        self.job = job
        self.engine = engine
        self.end: JobEnd | None = None
        self._ring = job.ring
        self._identity = identity
        self._send_frame = send
        self._positions = Positions()
        # Who has been there from the beginning gets tokens only after a prompt that all had to be ready for.
        self._upstream = Upstream(is_silent=job.is_replacement or not job.is_first)
        self._downstream = Downstream(
            job, self._positions, identity.dtype, self._send, partial(engine.kept_rows, job.job_id)
        )
        self._heard: set[bytes] = set()
        self._seal: Callable[[], Commitment] | None = None
        digest = job.assignment_digest
        self._commitment = StageCommitment(job.job_id, digest, job.stage, identity.profile, identity.shard_root, later)
        engine.add(job.job_id, sequence_spec(job, constraint))

    @property
    def peers(self) -> list[Peer]:
        """Everyone this job speaks with."""
        return list(dict.fromkeys((self.job.gateway, *self._ring.neighbours)))

    @property
    def stages_beside(self) -> set[Peer]:
        """The other stages that this one speaks with."""
        return set(self._ring.neighbours)

    @property
    def unheard(self) -> set[Peer]:
        """Those of them that have said nothing yet: whether they have the job is only the gateway's word."""
        return {peer for peer in self.stages_beside if peer.link_key not in self._heard}

    @property
    def has_data(self) -> bool:
        return self._positions.received > 0

    @property
    def is_behind(self) -> bool:
        """Whether a node that took a place downstream can be sent more of what it needs: call `catch_up`."""
        return self._downstream.is_behind

    def catch_up(self) -> None:
        """Send it the next piece. Raises JobFailed."""
        try:
            self._downstream.catch_up()
        except RowsLost as error:
            raise JobFailed(FailureCode.ROWS_LOST, str(error)) from error

    def hear_ready(self, sender: bytes) -> None:
        """A stage that comes after this one can take data, and so can all after it."""
        self._heard.add(sender)
        self._downstream.hear_ready(sender)

    def announce(self) -> None:
        """Say `ready` when this stage and all after it are; to be repeated until data comes."""
        if not self._downstream.is_ready:
            return
        if self.job.is_first and not self.has_data:
            self._send(self.job.gateway, wire.Ready(self.job.job_id))
        elif self._upstream.is_silent:
            for replica in self._ring.upstream:
                self._send(replica.peer, wire.Ready(self.job.job_id))

    def read_change(self, frame: wire.Replaced) -> Replacement | None:
        """The change that a gateway tells of, where it could follow; None when it was heard before.

        Who signed it, and who the new node is, is not looked at: that takes longer. Raises ForeignFrame.
        """
        try:
            change = Replacement.model_validate_json(frame.replacement)
        except ValidationError as error:
            raise ForeignFrame(f"the replacement has {error.error_count()} errors") from None
        if change.job != self.job.job_id:
            raise ForeignFrame("the replacement is for another job")
        if change.replica in self._ring_replicas:
            return None
        self._ring_after(change)
        return change

    def replace(self, change: Replacement) -> set[Peer]:
        """Another node stands in a place beside this one. Returns those who have left the job.

        Heard twice, it changes nothing. Raises ForeignFrame where it does not follow on what stands there.
        """
        before = self._ring
        if change.replica in self._ring_replicas:
            return set()
        self._ring = self._ring_after(change)
        if self._ring.upstream[:1] != before.upstream[:1]:
            self._upstream.is_replaced(self._positions.received)
        if self._ring.downstream != before.downstream:
            self._downstream.is_replaced(self._ring.listeners)
        return set(before.neighbours) - set(self._ring.neighbours)

    def receive(self, sender: bytes, frame: wire.JobFrame) -> None:
        """Act on a frame. Raises ForeignFrame, or JobFailed (the caller then calls `fail`)."""
        if not self._may_say(sender, frame):
            raise ForeignFrame(f"{frame.kind} from {sender.hex()}")
        self._heard.add(sender)
        if self._is_repeated(frame):
            return
        if isinstance(frame, wire.Ready):
            self.hear_ready(sender)
            self.announce()
        elif isinstance(frame, wire.Prompt):
            self._take_prompt(frame)
        elif isinstance(frame, wire.Hidden):
            self._take_hidden(frame)
        elif isinstance(frame, wire.Token):
            self._take_token(frame)
        elif isinstance(frame, wire.Finish):
            self._take_finish(frame)
        elif isinstance(frame, wire.Cancel):
            self._take_cancel()
        elif isinstance(frame, wire.Failed):
            self._take_failed(sender, frame)

    def put_out(self, output: StageOutput) -> None:
        """Send on what the engine made. Raises JobFailed."""
        if isinstance(output, SequenceFailed):
            raise JobFailed(output.error.code, str(output.error))
        if isinstance(output, HiddenRows):
            self._put_hidden(output)
        else:
            self._put_token(output)

    def fail(self, code: FailureCode, message: str, *, told_by: bytes = b"", blamed: str | None = None) -> None:
        """End the job without a receipt; everyone but who told us (a link key) is told, and who is `blamed`."""
        if self.end is not None:
            return
        self.engine.remove(self.job.job_id)
        self.end = JobEnd(code=code, message=message)
        for peer in self.peers:
            if peer.link_key != told_by:
                try:
                    self._send_frame(peer, wire.Failed(self.job.job_id, code, message[:400], blamed))
                except LinkError:
                    continue  # who cannot be told finds out by itself

    def conclude(self) -> JobEnd:
        """The end with its commitment; to be called once all that was hashed `later` is done."""
        assert self.end is not None
        if self._seal is None:
            return self.end
        try:
            return replace(self.end, commitment=self._seal())
        except Exception as error:  # whoever waits for the end must get one
            log.exception("a commitment could not be sealed")
            return JobEnd(code=FailureCode.NODE_ERROR, message=type(error).__name__)

    @property
    def _ring_replicas(self) -> tuple[Replica, ...]:
        return (*self._ring.upstream, *self._ring.downstream)

    def _ring_after(self, change: Replacement) -> RingView:
        """Raises ForeignFrame where the change does not follow, or is one too many: each opens a link."""
        if change.replica.attempt > self.job.attempt + MAX_EXCHANGES:
            raise ForeignFrame(f"more than {MAX_EXCHANGES} exchanges in one place")
        try:
            return self._ring.with_replacement(change, self.job.stage, self.job.num_stages)
        except ValueError as error:
            raise ForeignFrame(str(error)) from error

    def _may_say(self, sender: bytes, frame: wire.JobFrame) -> bool:
        job, ring = self.job, self._ring
        match frame:
            case wire.Ready():
                return _is_of(sender, ring.downstream)
            case wire.Prompt():
                return sender == job.gateway.link_key and job.is_first
            case wire.Hidden():
                return not job.is_first and _is_of(sender, ring.upstream[:1])
            case wire.Token():
                return job.is_first and _is_of(sender, ring.upstream[:1])
            case wire.Finish():
                return not job.is_last and _is_of(sender, ring.upstream[:1])
            case wire.Cancel():
                return sender == job.gateway.link_key
            case wire.Failed():
                return sender in {peer.link_key for peer in self.peers}
            case _:
                return False

    def _is_repeated(self, frame: wire.JobFrame) -> bool:
        """Whether this input came before: its sender cannot know what a cut link lost, or what another had sent."""
        match frame:
            case wire.Prompt():
                # There is but one. A `ready` that was long on its way makes the gateway say it again.
                return self.has_data and frame.num_tokens == self.job.num_prompt_tokens
            case wire.Hidden() | wire.Token():
                return not self._upstream.is_new(frame)
            case _:
                return False

    def _take_prompt(self, frame: wire.Prompt) -> None:
        if frame.num_tokens != self.job.num_prompt_tokens:
            raise JobFailed(
                FailureCode.WRONG_PROMPT, f"{frame.num_tokens} tokens, the job has {self.job.num_prompt_tokens}"
            )
        self._feed(0, frame.payload, frame.num_tokens)

    def _take_hidden(self, frame: wire.Hidden) -> None:
        dtype = self._identity.dtype
        in_prompt = self._is_prompt(frame.first_position, frame.num_tokens)
        allowed = formats_of(self.job.prompt_format_in, dtype) if in_prompt else (dtype,)
        if frame.dtype not in allowed:
            raise JobFailed(FailureCode.WRONG_DTYPE, f"{frame.dtype}, this stage takes {' or '.join(allowed)}")
        frame = self._upstream.new_part(frame)
        try:
            rows = decode_rows(frame.payload, frame.num_tokens, frame.dtype, dtype)
        except BadRows as error:
            raise JobFailed(FailureCode.INVALID_INPUT, str(error)) from error
        self._feed(frame.first_position, frame.payload, frame.num_tokens, rows)

    def _take_token(self, frame: wire.Token) -> None:
        # The last one is fed to nobody: it has a place, but no input comes of it.
        if frame.position != self.job.num_prompt_tokens + frame.index or frame.position != self._positions.received:
            raise JobFailed(
                FailureCode.POSITION_MISMATCH, f"token {frame.index} at {frame.position} does not continue the output"
            )
        if frame.finish_reason is None:
            self._feed(frame.position, struct.pack("<I", frame.token_id), 1)

    def _take_finish(self, frame: wire.Finish) -> None:
        if frame.num_output_tokens > self.job.max_tokens:
            raise JobFailed(
                FailureCode.FINISH_MISMATCH, f"{frame.num_output_tokens} tokens, at most {self.job.max_tokens}"
            )
        if self.job.stage < self.job.num_stages - 2:
            self._downstream.put_finish(frame)
        self._finish(frame.finish_reason, frame.num_output_tokens, None)

    def _take_failed(self, sender: bytes, frame: wire.Failed) -> None:
        """A neighbour that says so is blamed, whomever it blames: what it says of others is its word, not this node's,
        and the gateway has it from itself. A gateway has reasons of its own.

        A node that is replaced tells nobody. Its neighbours' job goes on, and they may not have heard of the change.
        """
        code = FailureCode(frame.code)
        if code is FailureCode.REPLACED and sender == self.job.gateway.link_key:
            self.engine.remove(self.job.job_id)
            self.end = JobEnd(code=code, message=frame.message)
            return
        neighbour = next((peer.address for peer in self.stages_beside if peer.link_key == sender), None)
        self.fail(code, frame.message, told_by=sender, blamed=neighbour)

    def _take_cancel(self) -> None:
        if not self.job.is_last:
            self.fail(FailureCode.CANCELLED, "the gateway gave the job up", told_by=self.job.gateway.link_key)
        else:
            self._decide("cancelled")

    def _is_prompt(self, first_position: int, num_tokens: int) -> bool:
        return first_position + num_tokens <= self.job.num_prompt_tokens

    def _feed(
        self, first_position: int, payload: wire.Buffer, num_tokens: int, rows: wire.Buffer | None = None
    ) -> None:
        """Commit to the payload as it came; compute with it, or with the `rows` that it decodes to."""
        try:
            self._positions.advance(Mark.RECEIVED, first_position, num_tokens)
            self.engine.feed(self.job.job_id, first_position, payload if rows is None else rows)
            self._commitment.received(first_position, payload, num_tokens)
        except EngineError as error:
            raise JobFailed(error.code, str(error)) from error
        except (PositionGap, CommitmentError) as error:
            raise JobFailed(FailureCode.POSITION_MISMATCH, str(error)) from error

    def _put_hidden(self, output: HiddenRows) -> None:
        first, num_tokens = output.first_position, output.num_tokens
        try:
            rows = self._downstream.put_rows(first, output.rows)
        except BadRows as error:
            raise JobFailed(FailureCode.NOT_FINITE, str(error)) from error
        self._positions.advance(Mark.COMPUTED, first, num_tokens)
        self._commit(first, rows, num_tokens)
        self._downstream.note_sent(first, num_tokens)

    def _put_token(self, output: SampledToken) -> None:
        ids = (output.index, output.position, output.token_id)
        frame = wire.Token(self.job.job_id, *ids, finish_reason=output.finish_reason)
        self._downstream.put_token(frame)
        if output.position > self._ring.from_position:
            self._tell_gateway(replace(frame, logprob=output.logprob, top_logprobs=output.top_logprobs))
        # All of the prompt but its last position is computed with nothing to show for it.
        first, num_silent = self._positions.computed, output.position - 1 - self._positions.computed
        self._positions.advance(Mark.COMPUTED, first, num_silent + 1)
        if num_silent:
            self._commit(first, b"", num_silent)
        token = struct.pack("<I", output.token_id)
        self._commit(output.position - 1, token, 1)
        self._downstream.note_sent(first, num_silent + 1)
        if output.finish_reason is not None:
            self._decide(output.finish_reason)
        elif self.job.num_stages == 1:
            self._feed(output.position, token, 1)

    def _commit(self, first_position: int, rows: wire.Buffer, num_tokens: int) -> None:
        self._commitment.sent(first_position, rows, num_tokens)
        self._positions.advance(Mark.COMMITTED, first_position, num_tokens)

    def _decide(self, reason: wire.FinishReason) -> None:
        """The last stage ends the job and tells all how many tokens there are."""
        token_ids, options = self._downstream.token_ids, self.job.options
        assert options is not None
        frame = wire.Finish(self.job.job_id, reason, len(token_ids))
        self._tell_gateway(frame)
        self._downstream.put_finish(frame)
        sampling = options.sampling
        self._finish(reason, len(token_ids), output_record(token_ids, sampling.seed, sampling.canonical()))

    def _finish(self, reason: wire.FinishReason, num_output_tokens: int, output: bytes | None) -> None:
        if num_output_tokens:
            num_positions = self.job.num_prompt_tokens + num_output_tokens - 1
            try:
                self._check_end(num_positions)
                self._commitment.check_seal(num_positions)
            except CommitmentError as error:
                raise JobFailed(FailureCode.FINISH_MISMATCH, str(error)) from error
            self._seal = partial(self._commitment.seal, num_positions, output)
        self.engine.remove(self.job.job_id)
        self.end = JobEnd(num_output_tokens, reason)

    def _check_end(self, num_positions: int) -> None:
        """A stage may have one position more than the last one counts when a job is cancelled."""
        if not self._positions.received - 1 <= num_positions <= self._positions.committed:
            raise CommitmentError(f"the job cannot end at {num_positions} of {self._positions.received} positions")

    def _tell_gateway(self, frame: wire.Frame) -> None:
        if self._ring.speaks:
            self._send(self.job.gateway, frame)

    def _send(self, peer: Peer, frame: wire.Frame) -> None:
        try:
            self._send_frame(peer, frame)
        except LinkError as error:
            raise JobFailed(FailureCode.LINK_FULL, str(error), peer) from error


def _is_of(sender: bytes, replicas: Sequence[Replica]) -> bool:
    return any(replica.peer.link_key == sender for replica in replicas)
