"""The engine thread: owner of links and engines. Poll the sockets, step the engines, send, look at the clock.

Other threads hand in jobs and receipts and get futures. Nothing that comes over the network can end this thread.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from declai.links.node_links import NodeLinks
from declai.links.sockets import Inbound
from declai.links.traffic import LinkTraffic
from declai.protocol import wire
from declai.protocol.failures import FailureCode
from declai.protocol.grammar import Constraint
from declai.protocol.jobs import StageJob
from declai.protocol.joining import HEARTBEAT_S
from declai.protocol.peers import RELAY, Peer
from declai.protocol.ring import Replacement
from declai.worker.engine import EngineError, HiddenRows, SampledToken, StageOutput
from declai.worker.job.ends import ForeignFrame, JobEnd, JobFailed
from declai.worker.job.hashing import Hasher
from declai.worker.job.neighbours import Neighbours
from declai.worker.job.outbox import Outbox
from declai.worker.job.parked import ParkedReady
from declai.worker.job.running import RunningJob
from declai.worker.job.served_layers import ServedLayers
from declai.worker.job.stage_engine import StageEngine, StageIdentity
from declai.worker.limits import IDLE_TIMEOUT_S, PEER_GRACE_S

log = logging.getLogger(__name__)

TICK_S = 0.1
READY_AGAIN_S = 0.2
PARKED_READY_S = 10.0
SPEED_SMOOTHING = 0.1


@dataclass(frozen=True)
class JobTimeouts:
    """Seconds after which a job ends: without any frame, and with a neighbour's link down."""

    idle_timeout_s: float = IDLE_TIMEOUT_S
    peer_grace_s: float = PEER_GRACE_S


@dataclass
class _Entry:
    running: RunningJob
    future: Future[JobEnd]
    last_activity: float
    next_ready: float


@dataclass(frozen=True)
class EngineThreadStatus:
    """A look at the thread from outside; counts since the start. `last_turn_at`: Unix seconds; it turns even idle."""

    num_jobs: int
    capacity: int
    num_receipts_waiting: int
    seconds_per_token_layer: float
    draining: bool
    dropped: dict[str, int]
    ended: dict[str, int]
    links: tuple[wire.LinkReport, ...]
    traffic: tuple[LinkTraffic, ...]
    num_link_full: int
    last_turn_at: float


class EngineThread(threading.Thread):
    """Runs this node's part of all its jobs. `start()`, then `submit` and `deliver` from any thread, then `stop()`."""

    def __init__(
        self,
        links: NodeLinks,
        served: ServedLayers,
        *,
        options: JobTimeouts | None = None,
        seconds_per_token_layer: float = 0.0,
        on_acknowledged: Callable[[bytes, bytes], None] = lambda job_id, acceptance: None,
        on_replaced: Callable[[StageJob, Replacement, wire.Replaced], None] = lambda job, change, frame: None,
    ) -> None:
        """
        Args:
            on_acknowledged: called with a job's id and its acceptance, in this thread; must not wait. `delivered`
                answers it.
            on_replaced: the same with a job and a change beside it that its gateway tells of and that could follow;
                `replace` answers it.
        """
        super().__init__(name="engine", daemon=True)
        self._links = links
        self._served = served
        self._options = options or JobTimeouts()
        self._speed = seconds_per_token_layer
        self._jobs: dict[bytes, _Entry] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._parked = ParkedReady()
        self._hasher = Hasher()
        self._neighbours = Neighbours(links)
        self._sender = self._neighbours.sender
        self._dropped = self._neighbours.dropped
        self._outbox = Outbox(links.send, on_acknowledged)
        self._on_replaced = on_replaced
        self._held: set[bytes] = set()
        self._gateways: dict[str, Peer] = {}
        self._next_tick = self._next_beat = 0.0
        self._last_turn = time.monotonic()
        self._beat_every_s = HEARTBEAT_S
        self._draining = self._stopping = False
        self._ended: Counter[str] = Counter()

    def submit(
        self, job: StageJob, engine: StageEngine, identity: StageIdentity, constraint: Constraint | None = None
    ) -> Future[JobEnd]:
        """Run a job on an engine, which is this thread's from now on. The future never raises.

        `constraint`: the job's grammar, compiled for this job alone.
        """
        future: Future[JobEnd] = Future()
        self._call(lambda: self._add(job, engine, identity, constraint, future))
        return future

    def deliver(self, peer: Peer, receipt: wire.Receipt) -> None:
        """Send a receipt to a gateway until it is `delivered`."""
        self._call(lambda: self._outbox.put(peer, receipt, time.monotonic()))

    def delivered(self, job_id: bytes) -> None:
        """The gateway's acceptance of a job's receipt is kept: send it no more."""
        self._call(lambda: self._outbox.remove(job_id))

    def replace(self, change: Replacement) -> None:
        """Another node stands in a place beside a job of this one. Nothing happens where the job is over."""
        self._call(lambda: self._replace(change))

    def refuse(self, job: StageJob, code: FailureCode, message: str) -> None:
        """Tell the gateway that a job of its will not run here."""
        self._call(lambda: self._turn_away(job, code, message))

    def beat_to(self, gateways: Iterable[Peer]) -> None:
        """From now on send heartbeats to these gateways."""
        peers = {peer.address: peer for peer in gateways}

        def change() -> None:
            self._gateways, self._next_beat = peers, 0.0
            if self._links.endpoint == RELAY:
                for gateway in peers.values():
                    self._links.listen_through(gateway)

        self._call(change)

    def beat_every(self, interval_s: float) -> None:
        """From now on send heartbeats so often, as the gateway asked."""

        def change() -> None:
            self._beat_every_s, self._next_beat = interval_s, 0.0

        self._call(change)

    def drain(self, draining: bool = True) -> None:
        """Take no more jobs (gateways learn it by the next heartbeat), or take them again."""

        def change() -> None:
            self._draining, self._next_beat = draining, 0.0

        self._call(change)

    def stop(self) -> None:
        """End what runs as failed, close the links, and wait until the thread is gone."""

        def change() -> None:
            self._stopping = True

        self._call(change)
        self.join()

    def status(self) -> EngineThreadStatus:
        return EngineThreadStatus(
            num_jobs=len(self._jobs),
            capacity=self._served.capacity,
            num_receipts_waiting=len(self._outbox),
            seconds_per_token_layer=self._speed,
            draining=self._draining,
            dropped=dict(self._dropped)
            | {"malformed": self._links.num_malformed, "refused": self._links.num_refused}
            | self._links.num_unsealed,
            ended=dict(self._ended),
            links=self._neighbours.reports,
            traffic=self._links.traffic.snapshot(),
            num_link_full=self._sender.num_full,
            last_turn_at=round(time.time() - (time.monotonic() - self._last_turn), 1),
        )

    def run(self) -> None:
        self._hasher.start()
        while not self._stopping:
            try:
                self._turn()
            except Exception:  # a fault of ours must not take the other jobs, the heartbeats and the receipts with it
                log.exception("a turn of the engine thread failed")
                time.sleep(TICK_S)
        for entry in list(self._jobs.values()):
            self._fail(entry, FailureCode.NODE_STOPPED, "the node is shutting down")
        self._hasher.close()
        self._links.close()

    def _turn(self) -> None:
        self._last_turn = time.monotonic()
        waits_s = [step_in_s for engine in self._engines() if (step_in_s := engine.step_in_s) is not None]
        if self._behind():
            waits_s.append(0.0)
        for inbound in self._links.poll(min([*waits_s, max(0.0, self._next_tick - time.monotonic())])):
            self._receive(inbound)
        self._run_inbox()
        for engine in self._engines():
            if engine.step_in_s == 0:
                self._step(engine)
        self._wait_for_links()
        self._catch_up()
        if time.monotonic() >= self._next_tick:
            self._tick(time.monotonic())
        self._hasher.release()

    def _engines(self) -> list[StageEngine]:
        engines = {id(engine): engine for engine in (entry.running.engine for entry in self._jobs.values())}
        return list(engines.values())

    def _running(self) -> list[RunningJob]:
        return [entry.running for entry in self._jobs.values()]

    def _call(self, action: Callable[[], None]) -> None:
        self._inbox.put(action)
        self._links.wake()

    def _run_inbox(self) -> None:
        while True:
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                return
            action()

    def _add(
        self,
        job: StageJob,
        engine: StageEngine,
        identity: StageIdentity,
        constraint: Constraint | None,
        future: Future[JobEnd],
    ) -> None:
        if self._draining or job.job_id in self._jobs or len(self._jobs) >= self._served.capacity:
            self._end_before_start(job, future, FailureCode.BUSY, "the node is draining or runs all the jobs it can")
            return
        try:
            running = RunningJob(job, engine, identity, self._sender.send, constraint, self._hasher.put)
        except EngineError as error:
            self._end_before_start(job, future, error.code, str(error))
            return
        now = time.monotonic()
        entry = _Entry(running, future, now, now)
        self._jobs[job.job_id] = entry
        with self._guard(entry):
            self._meet(entry, [replica.peer for replica in job.ring.downstream])

    def _replace(self, change: Replacement) -> None:
        entry = self._jobs.get(change.job)
        if entry is None:
            self._dropped["unknown_job"] += 1
            return
        with self._guard(entry):
            for peer in entry.running.replace(change):
                self._sender.leave(peer, change.job)
            self._meet(entry, [change.replica.peer])

    def _meet(self, entry: _Entry, new: Iterable[Peer]) -> None:
        """Open the links of a job in which some are new, who may have said already that they are ready."""
        job_id, now = entry.running.job.job_id, time.monotonic()
        entry.last_activity = now
        for peer in entry.running.peers:
            self._links.connect(peer)
        for peer in new:
            if self._parked.take(peer.link_key, job_id):
                entry.running.hear_ready(peer.link_key)
        self._announce(entry, now)

    def _end_before_start(self, job: StageJob, future: Future[JobEnd], code: FailureCode, message: str) -> None:
        self._turn_away(job, code, message)
        future.set_result(JobEnd(code=code, message=message))

    def _turn_away(self, job: StageJob, code: FailureCode, message: str) -> None:
        self._ended[code] += 1
        self._neighbours.tell(job.gateway, wire.Failed(job.job_id, code, message[:400]))

    def _receive(self, inbound: Inbound) -> None:
        frame, sender = inbound.frame, inbound.sender
        if isinstance(frame, wire.Heartbeat | wire.Receipt | wire.Relayed | wire.Listening):
            self._dropped["foreign"] += 1
        elif isinstance(frame, wire.Ping | wire.Pong):
            self._neighbours.receive_probe(sender, frame, self._running(), time.monotonic())
        elif isinstance(frame, wire.ReceiptAck):
            if not self._outbox.acknowledge(sender, frame):
                self._dropped["unknown_job"] += 1
        elif (entry := self._jobs.get(frame.job)) is None:
            if isinstance(frame, wire.Ready):
                self._parked.park(sender, frame.job, time.monotonic())
            else:
                self._dropped["unknown_job"] += 1
        elif isinstance(frame, wire.Replaced) and sender == entry.running.job.gateway.link_key:
            with self._guard(entry):
                if (change := entry.running.read_change(frame)) is not None:
                    self._on_replaced(entry.running.job, change, frame)
        else:
            with self._guard(entry):
                entry.running.receive(sender, frame)
                entry.last_activity = time.monotonic()

    def _wait_for_links(self) -> None:
        """Send what a full link left waiting; jobs that still wait get no turns of their engines, others again."""
        self._flush()
        waiting = self._sender.waiting_jobs
        for job_id in waiting ^ self._held:
            if (entry := self._jobs.get(job_id)) is not None:
                entry.running.engine.hold(job_id, job_id in waiting)
        self._held = waiting

    def _catch_up(self) -> None:
        """Send a piece of what was kept in each job whose neighbour needs it, and whose links take it now."""
        for entry in self._behind():
            with self._guard(entry):
                entry.running.catch_up()
                entry.last_activity = time.monotonic()

    def _behind(self) -> list[_Entry]:
        return [e for job_id, e in self._jobs.items() if e.running.is_behind and job_id not in self._held]

    def _flush(self) -> None:
        for job_id, (peer, error) in self._sender.flush().items():
            if (entry := self._jobs.get(job_id)) is not None:
                self._fail(entry, FailureCode.LINK_FULL, str(error), peer)

    def _step(self, engine: StageEngine) -> None:
        started = time.perf_counter()
        try:
            outputs = engine.step()
        except Exception as error:
            log.exception("the engine failed")
            for entry in [entry for entry in self._jobs.values() if entry.running.engine is engine]:
                self._fail(entry, FailureCode.ENGINE_ERROR, f"{type(error).__name__}: {error}")
            return
        elapsed_s = time.perf_counter() - started
        with self._sender.together():
            for output in outputs:
                if (owner := self._jobs.get(output.sequence_id)) is not None:
                    self._measure(output, elapsed_s / len(outputs), owner.running.job.num_layers)
                    owner.last_activity = time.monotonic()
                    with self._guard(owner):
                        owner.running.put_out(output)
        self._flush()

    def _measure(self, output: StageOutput, elapsed_s: float, num_layers: int) -> None:
        decoded = (isinstance(output, HiddenRows) and output.num_tokens == 1) or (
            isinstance(output, SampledToken) and output.index > 0
        )
        if decoded:
            measured = elapsed_s / num_layers
            self._speed += (measured - self._speed) * (SPEED_SMOOTHING if self._speed else 1.0)

    def _tick(self, now: float) -> None:
        self._next_tick = now + TICK_S
        self._links.watch_peers()
        self._neighbours.repeat_after_cuts()
        self._flush()
        self._parked.forget_before(now - PARKED_READY_S)
        for entry in list(self._jobs.values()):
            with self._guard(entry):
                self._check(entry, now)
        self._neighbours.give_up_after(self._options.peer_grace_s, now)
        self._outbox.send_again(now)
        self._neighbours.probe(self._running(), now)
        if now >= self._next_beat:
            self._next_beat = now + self._beat_every_s
            self._beat()
            self._forget_links()

    def _check(self, entry: _Entry, now: float) -> None:
        job = entry.running.job
        if time.time() > job.assignment.deadline:
            raise JobFailed(FailureCode.DEADLINE, "the assignment's deadline has passed")
        if now - entry.last_activity > self._options.idle_timeout_s:
            raise JobFailed(FailureCode.IDLE_TIMEOUT, f"nothing came for {self._options.idle_timeout_s:g} s")
        for peer in entry.running.peers:
            if self._links.down_for_s(peer) > self._options.peer_grace_s:
                raise JobFailed(FailureCode.PEER_LOST, f"no link to {peer.address}", peer)
        if now >= entry.next_ready:
            self._announce(entry, now)

    def _announce(self, entry: _Entry, now: float) -> None:
        entry.next_ready = now + READY_AGAIN_S
        entry.running.announce()

    def _beat(self) -> None:
        frame = self._served.heartbeat(len(self._jobs), self._speed, self._draining, self._neighbours.reports)
        for gateway in self._gateways.values():
            self._neighbours.tell(gateway, frame)

    def _forget_links(self) -> None:
        """Close links that no job, receipt or heartbeat needs."""
        needed = {peer for entry in self._jobs.values() for peer in entry.running.peers}
        self._links.keep_only(needed | self._sender.peers | set(self._outbox.peers) | set(self._gateways.values()))

    def _fail(self, entry: _Entry, code: FailureCode, message: str, blamed: Peer | None = None) -> None:
        entry.running.fail(code, message, blamed=blamed.address if blamed else None)
        self._settle(entry)

    def _settle(self, entry: _Entry) -> None:
        running = entry.running
        if running.end is not None and self._jobs.pop(running.job.job_id, None) is not None:
            self._ended[running.end.code or running.end.finish_reason or "finished"] += 1
            self._sender.ended(running.job.job_id, failed=bool(running.end.code), now=time.monotonic())
            self._hasher.put(lambda: entry.future.set_result(running.conclude()))

    @contextlib.contextmanager
    def _guard(self, entry: _Entry) -> Iterator[None]:
        """Around every call into a job: whatever goes wrong inside ends that job and no other."""
        try:
            yield
        except ForeignFrame:
            self._dropped["foreign"] += 1
        except JobFailed as error:
            entry.running.fail(error.code, str(error), blamed=error.blamed.address if error.blamed else None)
        except Exception as error:
            log.exception("a job failed")
            entry.running.fail(FailureCode.NODE_ERROR, type(error).__name__)
        self._settle(entry)
