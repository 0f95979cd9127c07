"""A node's end of links: one thread sends without ever waiting, and polls.

A node that nobody can connect to binds nothing: its DEALER to the gateway receives, too, and the gateway's ROUTER
answers it (`declai.links.relayed`). A node binds a DEALER: to a ROUTER peers may bring names of their own choice.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time

import zmq

from declai.links.keys import LinkKeyPair
from declai.links.relayed import WayIn
from declai.links.sockets import Inbound, LinkOptions, LinkSockets
from declai.links.zap import Admit
from declai.protocol.peers import Peer


class NodeLinks(LinkSockets):
    """For the engine thread: one call waits for frames or for another thread's `wake`."""

    _bound_type = zmq.DEALER

    def __init__(self, keys: LinkKeyPair, bind: str | None, admit: Admit, options: LinkOptions | None = None) -> None:
        super().__init__(keys, bind, admit, options)
        self._ways_in: dict[tuple[bytes, str], WayIn] = {}
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._bound, zmq.POLLIN)
        self._poller.register(self._wake_receiver, zmq.POLLIN)

    def poll(self, timeout_s: float, max_messages: int = 256) -> list[Inbound]:
        """The frames that have come, after waiting at most `timeout_s` for the first or for a wake-up."""
        # Rounded up: who waits for a moment less than a millisecond away would ask again and again until it is there.
        if any(ready is not self._bound for ready, _ in self._poller.poll(math.ceil(timeout_s * 1000))):
            with contextlib.suppress(BlockingIOError):
                self._wake_receiver.recv(4096)
        received = self._receive_now(max_messages)
        for way in self._ways_in.values():
            received += [Inbound(sender, frame) for sender, frame in way.receive_now(max_messages)]
        return received

    def listen_through(self, gateway: Peer) -> None:
        """From now on receive what this gateway passes on, over our own link to it, which then stays open."""
        sock = self._link_to(gateway).socket
        if gateway.hop not in self._ways_in:
            self._ways_in[gateway.hop] = WayIn(gateway, sock, self.seals)
            self._poller.register(sock, zmq.POLLIN)

    def watch_peers(self) -> None:
        super().watch_peers()
        for hop, way in self._ways_in.items():
            outgoing = self._outgoing[hop]
            if outgoing.down_since is None:
                way.announce(outgoing.num_connections, time.monotonic())

    def keep_only(self, peers: set[Peer]) -> None:
        super().keep_only(peers | {way.gateway for way in self._ways_in.values()})

    @property
    def num_unsealed(self) -> dict[str, int]:
        """Relayed frames that were dropped, by why: forged or altered, repeated, or no frames of ours."""
        ways = list(self._ways_in.values())  # asked from any thread
        return {
            "relay_forged": sum(way.num_forged for way in ways),
            "relay_repeated": sum(way.num_repeated for way in ways),
            "relay_malformed": sum(way.num_malformed for way in ways),
        }

    def wake(self) -> None:
        """End a `poll` under way, or the next one. From any thread."""
        with contextlib.suppress(OSError):  # full: a wake-up is pending anyway; or closed: nobody polls any more
            self._wake_sender.send(b"\0")

    def close(self) -> None:
        super().close()
        for end in (getattr(self, "_wake_sender", None), getattr(self, "_wake_receiver", None)):
            if end is not None:
                end.close()
