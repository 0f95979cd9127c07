"""Passes frames on to nodes that nobody can connect to, back over the connection that each of them opened to us.

Frames are sealed for the node's link key: the gateway sees the job, both ends and the size, and nothing else. A frame
waits here until the node says that it is there, so that it outlives a lost connection. What waits is bounded, for each
node and in all; no node has more than is left for the others, and no job more than half of a node's part. Where a bound
is reached, the job of that frame ends.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from declai.links.errors import LinkError, LinkGone
from declai.links.seals import FRAME_BYTES, Seals
from declai.protocol.peers import Peer
from declai.protocol.wire import Frame, JobFrame, Listening, Relayed

logger = logging.getLogger(__name__)
MIB = 2**20
# A connection's name that ZeroMQ chose begins so. Others are chosen by the peer, and could be another's one day; one
# that begins so may be, too, but nobody can tell which will be another's.
CHOSEN_BY_US = b"\0"
# Earlier connections of one node that may still live: one that is cut off is noticed within seconds.
MAX_STALE = 2


class Connections(Protocol):
    """What the relay needs of `links.gateway_links.GatewayLinks`."""

    seals: Seals

    def answer(self, connection: bytes, frame: Frame) -> None: ...


@dataclass(frozen=True)
class RelayLimits:
    """Bytes that may wait at the gateway: for one node (of one job: half of that), and for all nodes."""

    node_bytes: int = 64 * MIB
    all_bytes: int = 256 * MIB


@dataclass
class RelayCounts:
    """Since the start: what was passed on, what nobody may ask for, and jobs that ended because a bound was reached."""

    num_frames: int = 0
    num_bytes: int = 0
    num_refused: int = 0
    num_overflows: int = 0


def _weight(frame: Relayed) -> int:
    return memoryview(frame.payload).nbytes + FRAME_BYTES


class _Node:
    """What waits for one node: frames that went out over its connection, by ticket, then those that have not yet.

    ZeroMQ holds what went out until the other side reads it, so it counts until it is taken or its connection is gone:
    `stale` has the bytes on earlier connections, `dropped` the tickets whose job is over.
    """

    def __init__(self) -> None:
        self.connection: bytes | None = None
        self.sent: OrderedDict[int, Relayed] = OrderedDict()
        self.unsent: deque[Relayed] = deque()
        self.stale: dict[bytes, int] = {}
        self.dropped: set[int] = set()
        self.num_bytes = 0
        self.by_job: Counter[bytes] = Counter()

    def put(self, frame: Relayed) -> None:
        self.unsent.append(frame)
        self.num_bytes += _weight(frame)
        self.by_job[frame.job] += _weight(frame)

    def taken(self, ticket: int) -> None:
        """The node has everything up to this ticket. Tickets are random: who has not read one cannot name it."""
        while ticket in self.sent:
            number, frame = self.sent.popitem(last=False)
            self.num_bytes -= _weight(frame)
            self._uncount(number, frame)

    def connected(self, connection: bytes) -> None:
        """The node listens on another connection than before: it gets again what it did not say is there."""
        if self.connection is not None:
            self.stale[self.connection] = sum(map(_weight, self.sent.values()))
        self._take_back()
        self.connection = connection
        self._count()

    def gone(self, connection: bytes) -> None:
        """A connection has ended, and ZeroMQ has let go of what was on it."""
        self.stale.pop(connection, None)
        if connection == self.connection:
            self._take_back()
            self.connection = None
        self._count()

    def _take_back(self) -> None:
        again = [frame for number, frame in self.sent.items() if number not in self.dropped]
        self.unsent.extendleft(reversed(again))
        self.sent.clear()
        self.dropped.clear()

    def forget(self, job: bytes) -> None:
        self.dropped |= {number for number, frame in self.sent.items() if frame.job == job}
        self.unsent = deque(frame for frame in self.unsent if frame.job != job)
        self.by_job.pop(job, None)
        self._count()

    def _uncount(self, number: int, frame: Relayed) -> None:
        if number in self.dropped:
            self.dropped.remove(number)
            return
        self.by_job[frame.job] -= _weight(frame)
        if not self.by_job[frame.job]:
            del self.by_job[frame.job]

    def _count(self) -> None:
        waiting = itertools.chain(self.sent.values(), self.unsent)
        self.num_bytes = sum(map(_weight, waiting)) + sum(self.stale.values())


class Relay:
    """For one gateway, on its event loop."""

    def __init__(
        self,
        connections: Connections,
        own_key: bytes,
        limits: RelayLimits,
        on_overflow: Callable[[bytes, bytes], None],
    ) -> None:
        """`on_overflow(job, node)` is called when a job was dropped because too much waits for the node."""
        self._connections = connections
        self._own_key = own_key
        self._limits = limits
        self._on_overflow = on_overflow
        self._nodes: dict[bytes, _Node] = {}
        self._jobs: dict[bytes, dict[bytes, Peer]] = {}
        self.counts = RelayCounts()

    @property
    def num_bytes_waiting(self) -> int:
        return sum(node.num_bytes for node in self._nodes.values())

    def open(self, job: bytes, peers: Sequence[Peer]) -> None:
        """From now on these may send each other frames of this job, and nobody else may: who has left gets no more."""
        members = {peer.link_key: peer for peer in peers}
        for key in self._jobs.pop(job, {}).keys() - members.keys():
            if (node := self._nodes.get(key)) is not None:
                node.forget(job)
        if any(peer.relay is not None for peer in peers):
            self._jobs[job] = members

    def close(self, job: bytes) -> None:
        """The job is over: nothing of it waits any longer."""
        for key in self._jobs.pop(job, {}):
            if (node := self._nodes.get(key)) is not None:
                node.forget(job)

    def keep_only(self, peers: Iterable[Peer]) -> None:
        """Forget the nodes that left the registry, or listen elsewhere now."""
        keys = {peer.link_key for peer in peers if peer.relay is not None}
        for key in self._nodes.keys() - keys:
            del self._nodes[key]

    def listening(self, key: bytes, connection: bytes, frame: Listening) -> None:
        """A relayed node, which CURVE proved to hold this key on this connection, says how far it is."""
        node = self._nodes.setdefault(key, _Node())
        if node.connection != connection and not self._may_move(node, connection):
            self.counts.num_refused += 1
            return
        node.taken(frame.ticket)
        if node.connection != connection:
            node.connected(connection)
        self._send_on(node)

    def _may_move(self, node: _Node, connection: bytes) -> bool:
        """Whether a node may listen on this connection from now on: not on one that it left, nor on ever more."""
        self._probe(node)
        known = connection in node.stale or len(node.stale) >= MAX_STALE
        return connection.startswith(CHOSEN_BY_US) and not known

    def forward(self, sender: bytes, frame: Relayed) -> None:
        """Pass on what a node of a running job sealed for another node of that job; drop it otherwise."""
        members = self._jobs.get(frame.job, {})
        receiver = members.get(frame.peer)
        if receiver is None or receiver.relay is None or sender not in members or sender == frame.peer:
            self.counts.num_refused += 1
            return
        self._put(frame.peer, frame.job, sender, frame)

    def send(self, peer: Peer, frame: JobFrame) -> None:
        """A frame of the gateway's own to a relayed node. Raises LinkError when it cannot be sealed.

        Of a job that is over one waits at a time, for who listens: nothing would forget them, and they are said again.
        """
        node = self._nodes.get(peer.link_key)
        if frame.job not in self._jobs and (node is None or node.connection is None or node.by_job[frame.job]):
            return
        sealed = self._connections.seals.seal(self._own_key, peer.link_key, frame)
        self._put(peer.link_key, sealed.job, self._own_key, sealed)

    def _put(self, key: bytes, job: bytes, sender: bytes, sealed: Relayed) -> None:
        node = self._nodes.setdefault(key, _Node())
        frame = Relayed(job, sender, sealed.payload)
        if not self._has_room(node, frame):
            if job not in self._jobs:
                return
            for other in self._nodes.values():
                self._probe(other)
            if not self._has_room(node, frame):
                self._end(job, key)
                return
        node.put(frame)
        self._send_on(node)

    def _has_room(self, node: _Node, frame: Relayed) -> bool:
        """Whether a frame may wait. No node has more than is left for others: a few that take nothing leave room."""
        weight, limits = _weight(frame), self._limits
        num_bytes_left = limits.all_bytes - self.num_bytes_waiting
        return node.by_job[frame.job] + weight <= limits.node_bytes // 2 and node.num_bytes + weight <= min(
            limits.node_bytes, num_bytes_left
        )

    def _end(self, job: bytes, key: bytes) -> None:
        logger.warning("job %s ends: too many bytes wait for the relayed node with link key %s", job.hex(), key.hex())
        self.counts.num_overflows += 1
        self.close(job)
        self._on_overflow(job, key)

    def _probe(self, node: _Node) -> None:
        """Find out which connections are gone: nobody tells us, but sending fails."""
        for connection in [*node.stale, node.connection]:
            if connection is None:
                continue
            try:
                self._connections.answer(connection, Listening())
            except LinkGone:
                node.gone(connection)
            except LinkError:
                continue  # full, and so alive

    def _send_on(self, node: _Node) -> None:
        """Send what has not been sent, as far as the connection takes it; the rest goes when the node speaks again."""
        while node.unsent and node.connection is not None:
            # A new ticket each time: what was read on an earlier connection says nothing of this one.
            frame = replace(node.unsent[0], ticket=secrets.randbits(63) + 1)
            try:
                self._connections.answer(node.connection, frame)
            except LinkGone:
                node.gone(node.connection)
                return
            except LinkError:
                return
            node.sent[frame.ticket] = frame
            node.unsent.popleft()
            self.counts.num_frames += 1
            self.counts.num_bytes += memoryview(frame.payload).nbytes
