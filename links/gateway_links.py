"""The gateway's end of links: frames are awaited on the event loop, and answered over the connection they came on."""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
from typing import cast

import zmq
import zmq.asyncio

from declai.links.errors import LinkFull, LinkGone
from declai.links.keys import LinkKeyPair
from declai.links.sockets import Inbound, LinkOptions, LinkSockets
from declai.links.zap import Admit
from declai.protocol.wire import Frame, encode


class GatewayLinks(LinkSockets):
    """For the gateway's event loop."""

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
