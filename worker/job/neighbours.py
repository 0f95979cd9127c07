"""What leaves this node for others, over which links, and how these fare: the engine thread's side of every link.

Jobs' frames go through `sender`, which waits out full links and says the last words again after a cut. Everything else
is told once; who does not hear it is told again in time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from declai.links.errors import LinkError
from declai.links.node_links import NodeLinks
from declai.links.probes import LinkProbes
from declai.links.sending import Sender
from declai.protocol import wire
from declai.protocol.peers import Peer
from declai.worker.job.running import RunningJob


class Neighbours:
    """Used by the engine thread alone, but for `reports`.

    Attributes:
        sender: takes jobs' frames.
        reports: what was measured of links to other stages; replaced as a whole.
    """

    def __init__(self, links: NodeLinks) -> None:
        self.sender = Sender(self._send, may_join=lambda peer: peer.relay is None)
        self.reports: tuple[wire.LinkReport, ...] = ()
        self.dropped: Counter[str] = Counter()
        self._links = links
        self._probes = LinkProbes()
        self._num_connections: dict[Peer, int] = {}

    def tell(self, peer: Peer, frame: wire.Frame) -> None:
        """Send a frame now or never."""
        try:
            self._links.send(peer, frame)
        except LinkError:
            self.dropped["not_sent"] += 1

    def receive_probe(
        self, sender: bytes, frame: wire.Ping | wire.Pong, jobs: Iterable[RunningJob], now: float
    ) -> None:
        """Take an answer, or give one to a neighbour in one of these jobs."""
        if isinstance(frame, wire.Pong):
            if not self._probes.take(sender, frame, now):
                self.dropped["foreign"] += 1
            return
        neighbour = next((peer for peer in _stages_beside(jobs) if peer.link_key == sender), None)
        if neighbour is None:
            self.dropped["foreign"] += 1
        elif self._probes.may_answer(sender, now):
            self.tell(neighbour, wire.Pong(frame.id))

    def probe(self, jobs: Iterable[RunningJob], now: float) -> None:
        """Send the pings that are due to the neighbours in these jobs, and take stock of what was measured."""
        # Before data comes, the others may not have been given the job yet.
        under_way = [job for job in jobs if job.has_data]
        beside = _stages_beside(under_way)
        unheard = beside.difference(*(job.stages_beside - job.unheard for job in under_way))
        for peer, ping in self._probes.due(beside, now, unheard):
            self.tell(peer, ping)
        self.reports = tuple(self._probes.reports())

    def repeat_after_cuts(self) -> None:
        """With the next `flush`, what a cut may have lost leaves again."""
        before, seen = self._num_connections, {peer: self._links.num_connections(peer) for peer in self.sender.peers}
        for peer, number in seen.items():
            if number > before.get(peer, number):
                self.sender.is_back(peer)
            seen[peer] = max(number, before.get(peer, number))
        self._num_connections = seen

    def give_up_after(self, grace_s: float, now: float) -> None:
        """Forget what nobody will take or ask for any more: peers away, and jobs over, for longer than `grace_s`."""
        self.sender.forget_ended_before(now - grace_s)
        for peer in self.sender.peers:
            if self._links.down_for_s(peer) > grace_s:
                self.sender.is_gone(peer)

    def _send(self, peer: Peer, *frames: wire.Frame) -> None:
        """Jobs' frames to their peer; behind large ones a ping."""
        began = time.monotonic()
        # A link comes up once, perhaps after this; from then on each time means that something may have been lost.
        self._num_connections.setdefault(peer, max(1, self._links.num_connections(peer)))
        self._links.send(peer, *frames)
        num_bytes = sum(memoryview(frame.payload).nbytes for frame in frames if isinstance(frame, wire.Hidden))
        if num_bytes and peer.relay is None:
            ping = self._probes.behind(peer, num_bytes, began)
            if ping is not None:
                self.tell(peer, ping)


def _stages_beside(jobs: Iterable[RunningJob]) -> set[Peer]:
    """The neighbours in these jobs, but for those beyond a relay, which carries jobs alone."""
    return {peer for job in jobs for peer in job.stages_beside if peer.relay is None}
