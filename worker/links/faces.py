"""Links between nodes, as those see them who use them: they send without ever waiting. Torch-free.

`Links` is the engine thread's face (poll), `AsyncLinks` the gateway's (await). A node that nobody can connect to binds
nothing: its DEALER to the gateway receives, too, and the gateway's ROUTER answers it (`relay`). A node binds a DEALER:
to a ROUTER peers may bring names of their own choice.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
import os
import secrets
import socket
import time
from typing import cast

import zmq
import zmq.asyncio

from worker.errors import LinkFull, LinkGone
from worker.jobs import Peer
from worker.links.admission import Admit
from worker.links.keys import LinkKeyPair
from worker.links.relay import WayIn
from worker.links.sockets import Inbound, LinkOptions, LinkSockets
from worker.links.wire import Frame, encode


class Links(LinkSockets):
    """The engine thread's face: one call waits for frames or for another thread's `wake`."""

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


class AsyncLinks(LinkSockets):
    """The gateway's face: frames are awaited on the running event loop."""

    _bound_type = zmq.ROUTER

    def __init__(self, keys: LinkKeyPair, bind: str, admit: Admit, options: LinkOptions | None = None) -> None:
        _shuffle_connection_names()
        super().__init__(keys, bind, admit, options)
        self._bound.router_mandatory = True  # an answer to a connection that is gone raises
        self._async_bound: zmq.asyncio.Socket = zmq.asyncio.Socket.from_socket(self._bound)

    async def receive(self, max_messages: int = 256) -> list[Inbound]:
        """The frames that have come; waits until there is at least one well-formed frame."""
        while True:
            await asyncio.sleep(0)  # a flood of frames, well-formed or not, must not keep the event loop to itself
            received = self._receive_now(max_messages)
            if received:
                return received
            await self._async_bound.poll()

    def answer(self, connection: bytes, frame: Frame) -> None:
        """Send a frame back over a connection (`Inbound.connection`); never waits.

        Raises:
            LinkFull: too much is on its way already.
            LinkGone: the connection has ended.
        """
        parts = [connection, *encode(frame)]
        try:
            # Through the asyncio socket, which looks for what came in meanwhile: the plain one swallows its signal.
            sent = self._async_bound.send_multipart(parts, zmq.NOBLOCK, copy=False)
            cast("asyncio.Future[None]", sent).result()
        except zmq.Again:
            raise LinkFull("the connection is full") from None
        except zmq.ZMQError as error:
            raise LinkGone(f"the connection has ended: {error}") from None

    def close(self) -> None:
        if hasattr(self, "_async_bound"):
            self._async_bound.close()
        super().close()


def _shuffle_connection_names() -> None:
    """Let the next ROUTER begin its connections' names where nobody knows.

    It counts on from a `rand()` that is the same in every process, and ZeroMQ aborts when the next name is taken: a
    peer may choose any, and must not be able to tell which comes.
    """
    if os.name == "posix":
        ctypes.CDLL(None).srand(secrets.randbits(32))
