"""Drives one attempt at a request through its stages: dispatch, ready, prompt, tokens, finish, receipts.

The gateway stands beside the ring of stages: tokens pass by on their way to the client, none goes through it.
A frame is taken as it comes, and a token handed out at that moment; `run` waits for what it has to act on itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np

from declai.api.credits.admission import Admitted
from declai.api.errors import AttemptFailed, CapTooLow, ClientGone
from declai.api.serving.checking import checked_stages, facts_of, token_problem, with_node
from declai.api.serving.context import ServingContext
from declai.api.serving.stage_jobs import Generation, max_cost, replacement_job, stage_jobs
from declai.api.store.store import StoredStage
from declai.chain.messages import sign
from declai.planning.placement import NodeOffer, Plan
from declai.protocol.errors import InvalidReceipt
from declai.protocol.failures import FailureCode
from declai.protocol.jobs import seal
from declai.protocol.peers import Peer
from declai.protocol.receipt_checks import Transcript
from declai.protocol.receipts import SignedReceipt, acceptance_of
from declai.protocol.ring import Replacement, new_ring, seal_replacement
from declai.protocol.wire import Cancel, Failed, Finish, JobFrame, Prompt, Ready, Receipt, Token

CANCEL_TIMEOUT_S = 5.0
# A stage that is still ready so long after the prompt was sent did not get it: a cut link lost it.
PROMPT_AGAIN_S = 1.0
# After so much silence a wait looks whether the nodes still live.
LOOK_S = 1.0


class Attempt:
    """One try of a request on a plan. After `run`, `finish` is the last stage's word and `checked_stages` the rest."""

    def __init__(
        self, context: ServingContext, admitted: Admitted, generation: Generation, plan: Plan, attempt: int
    ) -> None:
        self._context = context
        self._generation = generation
        self._stall_s = context.timeouts.stall_s
        self._expected_s = plan.seconds
        addresses = [stage.offer.address for stage in plan.stages]
        self._ring = new_ring(context.gateway, [context.directory.peer(address) for address in addresses], attempt)
        self._jobs = stage_jobs(context, admitted, generation, plan, self._ring)
        self._job = self._jobs[0].job_id
        self._facts = facts_of(context, generation, plan)
        self._cancelled = False
        self._failure: Exception | None = None
        # Set with whatever `run` shall look at: ready, finish, a receipt, a failure, a cancel.
        self._news = asyncio.Event()
        self._exchanging = asyncio.Lock()
        self._is_over = False
        self._look_at = self._token_due_at = math.inf
        self._receipts: dict[str, SignedReceipt] = {}
        self.tokens: list[Token] = []
        self.finish: Finish | None = None
        self.ready_at: float | None = None
        self._prompt_sent_at = -math.inf

    @property
    def addresses(self) -> list[str]:
        """The nodes that the job runs on now."""
        return [peer.address for peer in self._peers]

    @property
    def _peers(self) -> list[Peer]:
        """Who speaks for each stage."""
        return [replicas[0].peer for replicas in self._ring.stages]

    @property
    def _last(self) -> Peer:
        return self._ring.stages[-1][0].peer

    def cancel(self) -> None:
        """Make no more tokens; what was made is charged. At any time, any number of times."""
        self._cancelled = True
        self._news.set()

    async def exchange(self, stage: int, offer: NodeOffer) -> None:
        """Put another node into a stage's place while the job lives; on the event loop of `run`, while that runs.

        Nothing has changed unless the new node has its task. Then its neighbours are told, and the node before it is
        no longer heard. Tokens may come meanwhile: what the new node then says again is known already.

        Raises:
            ValueError: nobody would be left who has been in the job from the beginning.
            CapTooLow: the request may cost more than is signed.
            NoCapacity: the broker does not take the new node's task.
            ClientGone: the job ended meanwhile.
        """
        async with self._exchanging:
            context, new = self._context, self._context.directory.peer(offer.address)
            ring = self._ring.with_node(stage, 0, new, self._first_unsure_position)
            job = replacement_job(context, self._jobs[stage], offer, ring)
            jobs = [*self._jobs[:stage], job, *self._jobs[stage + 1 :]]
            if (cost := max_cost(jobs, context.fee_bps)) > job.request.max_cost:
                raise CapTooLow(f"with this node the request may cost {cost}, {job.request.max_cost} are signed")
            context.directory.started([new.address])
            try:
                # It may refuse before `dispatch` returns.
                context.hub.change_members(self._job, [*self._peers, new])
                await context.dispatch([(new.address, seal(job, context.account))])
                if self._is_over:
                    raise ClientGone("the job ended while its node was exchanged")
            except BaseException:
                context.directory.ended([new.address])
                context.hub.change_members(self._job, self._peers)
                context.hub.dismiss(self._job, new)
                raise
            gone = self._peers[stage]
            self._ring, self._jobs, self._facts = ring, jobs, with_node(self._facts, context, offer)
            self._tell_of_change(stage, gone)

    def _tell_of_change(self, stage: int, gone: Peer) -> None:
        context = self._context
        context.hub.change_members(self._job, self._peers)
        change = Replacement(job=self._job, stage=stage, replica=self._ring.stages[stage][0])
        for beside in {(stage - 1) % len(self._jobs), (stage + 1) % len(self._jobs)}:
            context.hub.send(self._peers[beside], seal_replacement(change, context.account))
        context.hub.dismiss(self._job, gone)
        context.directory.ended([gone.address])
        self._prompt_sent_at = -math.inf

    @property
    def _first_unsure_position(self) -> int:
        """What all stages have received ends here at the earliest. The newest token may be known to us alone: the one
        before it has gone through the whole ring."""
        return len(self._generation.prompt_token_ids) + len(self.tokens) - 2 if self.tokens else 0

    async def run(self, on_token: Callable[[Token], None]) -> None:
        """Call `on_token` with each token as it comes; returns when every stage's receipt is here.

        Raises:
            AttemptFailed: a stage failed or fell silent; the others were told to stop.
            ClientGone: cancelled before the prompt was sent, or before the first token.
            Exception: what `on_token` raised.
        """
        with self._context.hub.open(self._job, self._peers, partial(self._take, on_token)):
            try:
                await self._open()
                await self._decode()
                if not self.tokens:
                    raise ClientGone("cancelled before the first token")
                await self._collect_receipts()
            except BaseException:
                self._context.hub.abandon(self._job, self._peers)
                raise
            finally:
                self._is_over = True

    async def _open(self) -> None:
        if self._cancelled:
            raise ClientGone("cancelled before it was dispatched")
        await self._context.dispatch([(job.assignment.node, seal(job, self._context.account)) for job in self._jobs])
        now = time.monotonic()
        deadline, self._look_at = now + self._context.timeouts.ready_s, now + LOOK_S
        while self.ready_at is None:
            if self._cancelled:
                raise ClientGone("cancelled before the stages were ready")
            await self._wait(deadline, "the stages were not ready in time")

    async def _decode(self) -> None:
        while self.finish is None and not self._cancelled:
            await self._wait(self._token_due_at, "no token came in time")
        if self.finish is None:
            self._context.hub.send(self._last, Cancel(self._job))
        deadline = time.monotonic() + CANCEL_TIMEOUT_S
        while self.finish is None:
            await self._wait(deadline, "no token came in time")

    async def _collect_receipts(self) -> None:
        deadline = time.monotonic() + self._context.timeouts.receipt_s
        while missing := [peer.address for peer in self._peers if peer.address not in self._receipts]:
            await self._wait(deadline, f"no receipt came from {', '.join(missing)}", missing[0])

    async def _wait(self, deadline: float, problem: str, suspect: str | None = None) -> None:
        """Wait for news, for the deadline, or for the time to look whether the nodes live: whichever comes first.

        Raises:
            AttemptFailed: a stage says that it failed, a node died, or the deadline passed with this `problem`.
        """
        if self._failure is not None:
            raise self._failure
        now = time.monotonic()
        if now >= deadline:
            raise AttemptFailed(FailureCode.IDLE_TIMEOUT, problem, suspect)
        if now >= self._look_at:
            self._check_alive()
            self._look_at = now + LOOK_S
        with suppress(TimeoutError):
            async with asyncio.timeout(min(deadline, self._look_at) - now):
                await self._news.wait()
        self._news.clear()

    def _take(self, on_token: Callable[[Token], None], address: str, frame: JobFrame) -> None:
        """What a member of the job says. It is heard until something spoils the attempt, which `run` raises."""
        if self._failure is not None:
            return
        self._look_at = time.monotonic() + LOOK_S
        try:
            self._take_frame(on_token, address, frame)
        except Exception as error:
            self._failure = error
            self._news.set()

    def _take_frame(self, on_token: Callable[[Token], None], address: str, frame: JobFrame) -> None:
        if isinstance(frame, Failed):
            text = f"node {address} says that the job failed ({frame.code}): {frame.message}"
            raise AttemptFailed(FailureCode(frame.code), text, self._blamed(address, frame))
        if isinstance(frame, Receipt):
            self._keep_receipt(address, frame)
        elif self.finish is not None:
            return
        elif isinstance(frame, Ready):
            self._take_ready(address)
        elif self.ready_at is None or address != self._last.address:
            return
        elif isinstance(frame, Token):
            self._take_token(on_token, frame)
        elif isinstance(frame, Finish):
            self._take_finish(frame)

    def _take_ready(self, address: str) -> None:
        now = time.monotonic()
        if self.ready_at is None:
            if self._cancelled or address != self._peers[0].address:
                return
            self.ready_at = now
            # The first token comes after the whole prompt went through all stages.
            self._token_due_at = now + self._stall_s + self._expected_s
            self._news.set()
        if now - self._prompt_sent_at > PROMPT_AGAIN_S:
            ids = np.asarray(self._generation.prompt_token_ids, dtype="<u4")
            self._context.hub.send(self._peers[0], Prompt(self._job, len(ids), ids.tobytes()))
            self._prompt_sent_at = now

    def _take_token(self, on_token: Callable[[Token], None], token: Token) -> None:
        if token.index < len(self.tokens) and token.token_id == self.tokens[token.index].token_id:
            return  # said again: after its link was cut, or by another node in the last one's place
        if (problem := token_problem(token, len(self.tokens), self._generation)) is not None:
            raise AttemptFailed(FailureCode.INVALID_OUTPUT, problem, self._last.address)
        self.tokens.append(token)
        self._token_due_at = time.monotonic() + self._stall_s
        on_token(token)

    def _take_finish(self, frame: Finish) -> None:
        if frame.num_output_tokens != len(self.tokens):
            raise AttemptFailed(
                FailureCode.FINISH_MISMATCH, "the last stage counts other tokens than it sent", self._last.address
            )
        self.finish = frame
        self._news.set()

    def _blamed(self, sender: str, frame: Failed) -> str:
        """Who spoiled the job: the sender, unless it blames another member of the job."""
        members = {peer.address for peer in self._peers}
        return frame.blamed if frame.blamed in members else sender

    def _check_alive(self) -> None:
        for peer in self._peers:
            if not self._context.directory.is_live(peer.address):
                raise AttemptFailed(FailureCode.PEER_LOST, f"node {peer.address} is gone", peer.address)

    def _keep_receipt(self, address: str, frame: Receipt) -> None:
        try:
            self._receipts[address] = SignedReceipt.from_frame(frame)
        except InvalidReceipt as error:
            text = f"node {address} sent no receipt: {error}"
            raise AttemptFailed(FailureCode.INVALID_RECEIPT, text, address) from None
        self._news.set()

    def checked_stages(self) -> list[StoredStage]:
        """The stages with their receipts, verified alone and against each other. Blocking: hashes every token.

        Raises:
            AttemptFailed: something does not hold; the node that it is about is named.
        """
        receipts = [self._receipts[peer.address] for peer in self._peers]
        token_ids = [token.token_id for token in self.tokens]
        transcript = Transcript(self._generation.prompt_token_ids, token_ids, self._generation.options.sampling)
        return checked_stages(self._jobs, receipts, transcript, self._facts, self._context.fee_bps)

    def acknowledge(self) -> None:
        """The receipts are durable: sign to each node that its receipt is owed."""
        domain, account = self._context.domain, self._context.account
        accepted = [acceptance_of(self._receipts[peer.address].receipt, domain) for peer in self._peers]
        signatures = [sign(acceptance, domain, account) for acceptance in accepted]
        self._context.hub.acknowledge(self._job, list(zip(self._peers, signatures, strict=True)))
