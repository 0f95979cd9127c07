"""How a node that nobody can connect to receives: on its own link to a gateway, which passes sealed frames on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import zmq

from declai.links.seals import FRAME_BYTES, Seals
from declai.protocol.errors import ForgedFrame, MalformedFrame, RepeatedFrame
from declai.protocol.peers import Peer
from declai.protocol.wire import Frame, Listening, Relayed, decode, encode

# Said again now and then, for the gateway may have forgotten us.
LISTENING_AGAIN_S = 2.0
# The gateway is told what is here when so much has come, or at the next look at the clock: not for each token.
TAKEN_BYTES = 2**18


class WayIn:
    """The receiving side of the DEALER to one gateway. Used by the engine thread alone; never raises, never waits."""

    def __init__(self, gateway: Peer, sock: zmq.Socket[bytes], seals: Seals) -> None:
        self.gateway = gateway
        self.socket = sock
        self._seals = seals
        self._ticket = self._ticket_said = 0
        self._num_bytes_taken = 0
        self._connection = 0
        self._next_at = 0.0
        self.num_forged = self.num_repeated = self.num_malformed = 0

    def announce(self, connection: int, now: float) -> None:
        """Tell the gateway that we listen, on every new connection (`connection` counts them), and what has come."""
        if connection and (connection != self._connection or now >= self._next_at or self._ticket != self._ticket_said):
            self._connection = connection
            self._next_at = now + LISTENING_AGAIN_S
            self._say_listening()

    def receive_now(self, max_messages: int) -> Iterator[tuple[bytes, Frame]]:
        """(link key of who sealed it, frame) of what has come."""
        for _ in range(max_messages):
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            try:
                relayed = decode([part.buffer for part in parts])
                if isinstance(relayed, Listening):
                    continue  # the gateway looks whether this connection still lives
                if not isinstance(relayed, Relayed):
                    raise MalformedFrame(f"a {relayed.kind} frame is not sealed")
                self._ticket = relayed.ticket
                self._num_bytes_taken += memoryview(relayed.payload).nbytes + FRAME_BYTES
                yield relayed.peer, self._seals.open(self.gateway.link_key, relayed)
            except ForgedFrame:
                self.num_forged += 1
            except RepeatedFrame:
                self.num_repeated += 1
            except MalformedFrame:
                self.num_malformed += 1
        if self._num_bytes_taken >= TAKEN_BYTES:
            self._say_listening()

    def _say_listening(self) -> None:
        with contextlib.suppress(zmq.Again):  # it is said again
            self.socket.send_multipart(encode(Listening(self._ticket)), zmq.NOBLOCK)
            self._ticket_said, self._num_bytes_taken = self._ticket, 0
