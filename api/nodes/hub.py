"""The gateway's one link endpoint: frames of a job go to whoever drives it, heartbeats to the directory."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from declai.api.nodes.directory import NodeDirectory
from declai.links.errors import LinkError
from declai.links.gateway_links import GatewayLinks
from declai.links.keys import LinkKeyPair
from declai.links.relay import Relay, RelayLimits
from declai.protocol.failures import FailureCode
from declai.protocol.peers import Peer
from declai.protocol.wire import (
    Failed,
    Frame,
    Heartbeat,
    JobFrame,
    Listening,
    Ping,
    Pong,
    Receipt,
    ReceiptAck,
    Relayed,
)

logger = logging.getLogger(__name__)
# Receipts of jobs that are stored already come again when their acknowledgement was lost.
MAX_STORED_JOBS = 4096
# A node that is just taking a job up does not know it yet when it is given up: it is told again.
ABANDON_AGAIN_S = (0.3, 2.0)


@dataclass
class _OpenJob:
    """A job's members (addresses by link key), and who takes what they send."""

    members: dict[bytes, str]
    take: Callable[[str, JobFrame], None]


class LinkHub:
    """Owns the links; to be made and used on the event loop."""

    def __init__(
        self, keys: LinkKeyPair, bind: str, directory: NodeDirectory, limits: RelayLimits | None = None
    ) -> None:
        """Raises LinkError when it cannot listen at `bind`."""
        self._directory = directory
        self._links = GatewayLinks(keys, bind, directory.admits)
        self.relay = Relay(self._links, keys.public, limits or RelayLimits(), self._overflowed)
        self._jobs: dict[bytes, _OpenJob] = {}
        self._stored: OrderedDict[bytes, dict[str, ReceiptAck]] = OrderedDict()
        self._receiver = asyncio.create_task(self._receive(), name="links")
        self._is_open = True
        self.num_dropped = 0

    @property
    def endpoint(self) -> str:
        """Where it listens, with the port that was chosen."""
        return self._links.endpoint

    @property
    def num_malformed(self) -> int:
        return self._links.num_malformed

    async def close(self) -> None:
        self._is_open = False
        self._receiver.cancel()
        with suppress(asyncio.CancelledError):
            await self._receiver
        self._links.close()

    @contextmanager
    def open(self, job: bytes, peers: Sequence[Peer], take: Callable[[str, JobFrame], None]) -> Iterator[None]:
        """Receive the frames of a job from these peers and nobody else.

        `take(address, frame)` is called as each comes, with the node that sent it, and keeps its errors to itself:
        nothing waits here, so whatever a member sends in plenty is the job's own affair.
        """
        self._jobs[job] = _OpenJob(_members(peers), take)
        self.relay.open(job, peers)
        try:
            yield
        finally:
            del self._jobs[job]
            self.relay.close(job)

    def change_members(self, job: bytes, peers: Sequence[Peer]) -> None:
        """From now on these take part in a job, and nobody else. Nothing happens where it is not open."""
        if job in self._jobs:
            self._jobs[job].members = _members(peers)
            self.relay.open(job, peers)

    def send(self, peer: Peer, frame: JobFrame) -> None:
        """Hand a frame to a node's link. A dead link shows as silence, which every wait of ours bounds."""
        if not self._is_open:
            return
        try:
            (self._links if peer.relay is None else self.relay).send(peer, frame)
        except LinkError as error:
            logger.warning("%s frame not sent: %s", frame.kind, error)

    def acknowledge(self, job: bytes, acceptances: Sequence[tuple[Peer, bytes]]) -> None:
        """A job's receipts are stored for good: give its nodes our signed word, now and whenever they ask again."""
        self._stored[job] = {peer.address: ReceiptAck(job, acceptance) for peer, acceptance in acceptances}
        if len(self._stored) > MAX_STORED_JOBS:
            self._stored.popitem(last=False)
        for peer, _ in acceptances:
            self.send(peer, self._stored[job][peer.address])

    def keep_only(self, peers: Iterable[Peer]) -> None:
        """Close the links to everyone else: they left the registry, or moved."""
        kept = set(peers)
        self._links.keep_only(kept)
        self.relay.keep_only(kept)

    def abandon(self, job: bytes, peers: Sequence[Peer]) -> None:
        """A job is over without a receipt: nobody shall work on it or wait for it."""
        self._say_again(peers, Failed(job, FailureCode.ABANDONED, "the gateway gave the job up"))

    def dismiss(self, job: bytes, peer: Peer) -> None:
        """A job goes on without this node, which shall tell nobody."""
        self._say_again([peer], Failed(job, FailureCode.REPLACED, "another node has this place now"))

    def _say_again(self, peers: Sequence[Peer], frame: Failed) -> None:
        loop = asyncio.get_running_loop()
        for peer in peers:
            self.send(peer, frame)
            for delay_s in ABANDON_AGAIN_S:
                loop.call_later(delay_s, self.send, peer, frame)

    async def _receive(self) -> None:
        while True:
            for inbound in await self._links.receive():
                try:
                    self._take(inbound.sender, inbound.frame, inbound.connection)
                except Exception:  # whatever one frame does, the next one is somebody else's
                    logger.exception("a frame could not be taken")

    def _take(self, sender: bytes, frame: Frame, connection: bytes) -> None:
        if isinstance(frame, Heartbeat):
            self._directory.beat(sender, frame)
            return
        if isinstance(frame, Ping | Pong):  # between neighbours in a ring, where the gateway is none
            self.num_dropped += 1
            return
        if isinstance(frame, Relayed):
            self.relay.forward(sender, frame)
            return
        if isinstance(frame, Listening):
            if self._directory.is_relayed(sender):
                self.relay.listening(sender, connection, frame)
            return
        if self._hand_over(frame.job, sender, frame):
            return
        if isinstance(frame, Receipt) and frame.job in self._stored:
            address = self._directory.registry.by_key.get(sender)
            if address is not None and (again := self._stored[frame.job].get(address)) is not None:
                self.send(self._directory.peer(address), again)
            return
        self.num_dropped += 1

    def _hand_over(self, job: bytes, sender: bytes, frame: JobFrame) -> bool:
        """Give a member's frame to whoever drives the job; False for a stranger's."""
        running = self._jobs.get(job)
        if running is None or (address := running.members.get(sender)) is None:
            return False
        running.take(address, frame)
        return True

    def _overflowed(self, job: bytes, node: bytes) -> None:
        """The relay dropped a job: whoever drives it hears of it as if the node, which is too slow, had said so."""
        self._hand_over(
            job, node, Failed(job, FailureCode.RELAY_FULL, "too many bytes wait at the gateway for this node")
        )


def _members(peers: Sequence[Peer]) -> dict[bytes, str]:
    return {peer.link_key: peer.address for peer in peers}
