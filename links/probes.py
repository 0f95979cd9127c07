"""How far away each neighbour is and how much its link carries: pings, their answers, and what follows. No sockets.

A round trip is the shortest of the last few, because an answer also waits until the neighbour's engine has finished its
step. A bandwidth comes from a ping right behind a large frame, on a link that was quiet: the frame's bytes by the time
that the answer took beyond the round trip. Both can only look worse than they are, so the best of the last few counts.

A neighbour that does not answer counts as far away, or silence would be the way to look near. This holds only for a
neighbour that has spoken in the job. Of any other, only the gateway's word says that it has the job at all.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from declai.protocol.peers import Peer
from declai.protocol.wire import MAX_LINK_REPORTS, LinkReport, Ping, Pong

PING_EVERY_S = 1.0
MAX_ANSWERS_PER_S = 4
LOST_S = 10.0
# One may be lost with the end of a job, or behind a long step.
MOST_LOST = 2
# Reported for as long: a measurement of long ago is none of now.
FORGET_S = 600.0
NUM_SAMPLES = 16
LARGE_BYTES = 128 * 1024
# No link is taken for faster than its frame in this time: below it clocks and threads are what is measured.
SHORTEST_TRANSFER_S = 0.0005


@dataclass
class _Link:
    peer: Peer
    round_trips_s: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_SAMPLES))
    bytes_per_s: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_SAMPLES))
    measured_at: float = 0.0
    last_large_at: float = float("-inf")
    ping_id: int | None = None
    ping_at: float = float("-inf")
    num_ping_bytes: int = 0
    must_answer: bool = False
    num_lost: int = 0  # since the last answer

    @property
    def is_silent(self) -> bool:
        return self.num_lost > MOST_LOST

    @property
    def rtt_s(self) -> float | None:
        return min(self.round_trips_s, default=None)

    @property
    def report(self) -> LinkReport | None:
        if self.is_silent:
            return LinkReport(self.peer.address, LOST_S, None)
        if self.rtt_s is None:
            return None
        return LinkReport(self.peer.address, self.rtt_s, max(self.bytes_per_s, default=None))


class LinkProbes:
    """Used by one thread. Knows the neighbours that it was told of, and nobody else."""

    def __init__(self) -> None:
        self._links: dict[bytes, _Link] = {}
        self._answered_at: OrderedDict[bytes, deque[float]] = OrderedDict()

    def due(self, peers: Iterable[Peer], now: float, unheard: Container[Peer] = ()) -> list[tuple[Peer, Ping]]:
        """The pings to send now, given today's neighbours; `unheard`: those who may have no reason to answer."""
        pings = []
        for peer in peers:
            link = self._link(peer)
            waits = link.ping_id is not None
            if now - link.ping_at >= (LOST_S if waits else PING_EVERY_S):
                if waits and link.must_answer:
                    link.num_lost += 1
                    link.measured_at = now
                link.must_answer = peer not in unheard
                pings.append((peer, self._ping(link, now, 0)))
        old = [key for key, link in self._links.items() if now - max(link.ping_at, link.measured_at) > FORGET_S]
        for key in old:
            del self._links[key]
        return pings

    def behind(self, peer: Peer, num_bytes: int, began: float) -> Ping | None:
        """The ping to send right behind a frame that was handed over at `began`, if it is to be measured."""
        if num_bytes < LARGE_BYTES:
            return None
        link = self._link(peer)
        was_quiet = began - link.last_large_at >= PING_EVERY_S
        link.last_large_at = began
        # Without a round trip nothing could be taken off; a ping under way already says less than this one.
        return self._ping(link, began, num_bytes) if was_quiet and link.rtt_s is not None else None

    def may_answer(self, sender: bytes, now: float) -> bool:
        """Whether this sender's ping gets an answer: at most MAX_ANSWERS_PER_S do."""
        answered = self._answered_at.setdefault(sender, deque(maxlen=MAX_ANSWERS_PER_S))
        self._answered_at.move_to_end(sender)
        while len(self._answered_at) > MAX_LINK_REPORTS:
            self._answered_at.popitem(last=False)
        if len(answered) == MAX_ANSWERS_PER_S and now - answered[0] < 1.0:
            return False
        answered.append(now)
        return True

    def take(self, sender: bytes, pong: Pong, now: float) -> bool:
        """An answer came; False when it is none to this sender's last ping."""
        link = self._links.get(sender)
        if link is None or link.ping_id != pong.id:
            return False
        link.ping_id, link.num_lost = None, 0
        elapsed_s = now - link.ping_at
        if not link.num_ping_bytes:
            link.round_trips_s.append(elapsed_s)
        elif link.rtt_s is not None:
            link.bytes_per_s.append(link.num_ping_bytes / max(elapsed_s - link.rtt_s, SHORTEST_TRANSFER_S))
        link.measured_at = now
        return True

    def reports(self) -> list[LinkReport]:
        """What was measured, the newest first, at most MAX_LINK_REPORTS."""
        newest = sorted(self._links.values(), key=lambda link: -link.measured_at)
        return [report for link in newest if (report := link.report) is not None][:MAX_LINK_REPORTS]

    def _link(self, peer: Peer) -> _Link:
        link = self._links.get(peer.link_key)
        if link is None or link.peer != peer:  # moved: what was measured is of another line
            link = self._links[peer.link_key] = _Link(peer)
        return link

    def _ping(self, link: _Link, now: float, num_bytes: int) -> Ping:
        # Random: who can guess it could answer before the ping came, and seem near.
        link.ping_id, link.ping_at, link.num_ping_bytes = secrets.randbits(64), now, num_bytes
        return Ping(link.ping_id)
