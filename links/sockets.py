"""The sockets of links: ZeroMQ over TCP, CURVE-encrypted, open to registered link keys alone. Torch-free.

Everyone binds one socket, which only receives, and connects one DEALER per peer, which only sends.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from declai.links.errors import LinkError, LinkFull
from declai.links.keys import LinkKeyPair
from declai.links.seals import Seals
from declai.links.traffic import Traffic
from declai.links.zap import Admit, ZapAnswers
from declai.protocol.errors import MalformedFrame, OtherWireVersion
from declai.protocol.peers import RELAY, Peer
from declai.protocol.wire import MAX_MESSAGE_FRAMES, MAX_PAYLOAD_BYTES, Buffer, Frame, decode, encode

log = logging.getLogger(__name__)

MAX_SOCKETS = 8192


@dataclass(frozen=True)
class LinkOptions:
    """Socket options of every link. High-water marks count messages, per peer and direction."""

    high_water_messages: int = 128
    max_message_bytes: int = MAX_PAYLOAD_BYTES
    heartbeat_s: float = 1.0
    heartbeat_timeout_s: float = 4.0
    handshake_timeout_s: float = 5.0
    reconnect_s: float = 0.1
    max_reconnect_s: float = 2.0
    linger_s: float = 0.5

    def apply(self, sock: zmq.Socket[bytes], endpoint: str) -> None:
        sock.sndhwm = sock.rcvhwm = self.high_water_messages
        sock.maxmsgsize = self.max_message_bytes
        sock.heartbeat_ivl = _ms(self.heartbeat_s)
        sock.heartbeat_timeout = sock.heartbeat_ttl = _ms(self.heartbeat_timeout_s)
        sock.handshake_ivl = _ms(self.handshake_timeout_s)
        sock.reconnect_ivl = _ms(self.reconnect_s)
        sock.reconnect_ivl_max = _ms(self.max_reconnect_s)
        sock.linger = _ms(self.linger_s)
        sock.ipv6 = endpoint.startswith("tcp://[")


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


@dataclass(frozen=True, slots=True)
class Inbound:
    """A frame and the link key that CURVE, or the seal of a relayed frame, proved its sender to hold.

    `connection` is ZeroMQ's name of the connection on which it came to a bound socket.
    """

    sender: bytes
    frame: Frame
    connection: bytes = b""


class _Outgoing:
    """The DEALER to one peer, and since when the peer does not answer (None while it does)."""

    def __init__(self, sock: zmq.Socket[bytes]) -> None:
        self.socket = sock
        self.down_since: float | None = time.monotonic()
        self.num_connections = 0
        self._monitor = sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)

    def watch(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.down_since = None
                self.num_connections += 1
            elif event == zmq.EVENT_DISCONNECTED and self.down_since is None:
                self.down_since = time.monotonic()

    def close(self) -> None:
        self.socket.disable_monitor()
        self._monitor.close()
        self.socket.close()


class LinkSockets:
    """The sockets, and what nodes and gateways do alike with them. For one thread only, but for `NodeLinks.wake`."""

    _bound_type: ClassVar[zmq.SocketType]

    def __init__(self, keys: LinkKeyPair, bind: str | None, admit: Admit, options: LinkOptions | None = None) -> None:
        """Listen at `bind` ("tcp://host:port", port 0 for any; None: nowhere); `admit` says who may connect.

        `admit` is called from a thread of its own and may take its time.
        """
        self.seals = Seals(keys.public, keys.secret)
        self._keys = keys
        self._options = options or LinkOptions()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        self._outgoing: dict[tuple[bytes, str], _Outgoing] = {}
        self.num_malformed = 0
        self._of_other_versions: set[bytes] = set()
        self.traffic = Traffic()
        self._admission = ZapAnswers(self._context, admit)
        self._admission.start()
        self._bound = self._context.socket(self._bound_type)
        self.endpoint = RELAY
        if bind is not None:
            self._bind(bind)

    def _bind(self, bind: str) -> None:
        self._options.apply(self._bound, bind)
        self._bound.curve_server = True
        self._bound.curve_secretkey = self._keys.secret
        self._bound.zap_domain = b"declai"
        try:
            self._bound.bind(bind)
        except zmq.ZMQError as error:
            self.close()
            raise LinkError(f"cannot listen at {bind}: {error}") from error
        self.endpoint = self._bound.get_string(zmq.LAST_ENDPOINT).rstrip("\0")

    @property
    def num_refused(self) -> int:
        """Connections refused because their key is not registered."""
        return self._admission.num_refused

    def connect(self, peer: Peer) -> None:
        """Open the link to a peer ahead of the first frame; does nothing when it is open."""
        self._link_to(peer)

    def send(self, peer: Peer, *frames: Frame) -> None:
        """Hand frames to the peer's link in one message, so that they arrive together; never waits.

        To a relayed peer they go one by one.

        Raises:
            LinkFull: too much is on its way already; no frame was taken.
            LinkError: no socket can be made for the peer, or a frame cannot be sealed for it.
        """
        outgoing = self._link_to(peer)
        if peer.relay is not None:
            (frame,) = frames
            frames = (self.seals.seal(peer.relay, peer.link_key, frame),)
        parts = [part for frame in frames for part in encode(frame)]
        try:
            outgoing.socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            raise LinkFull(f"the link to {peer.address} at {peer.endpoint} is full") from None
        self.traffic.sent(peer.link_key, peer.address, _size(parts), len(frames))

    def down_for_s(self, peer: Peer) -> float:
        """Seconds since the peer was last connected (since the first attempt when never); 0 while it is.

        Of a relayed peer it is the gateway that is or is not connected.
        """
        outgoing = self._outgoing.get(peer.hop)
        if outgoing is None or outgoing.down_since is None:
            return 0.0
        return time.monotonic() - outgoing.down_since

    def num_connections(self, peer: Peer) -> int:
        """How often the link to a peer came up: with each time after the first, something may have been lost."""
        outgoing = self._outgoing.get(peer.hop)
        return outgoing.num_connections if outgoing is not None else 0

    def watch_peers(self) -> None:
        """Take note of who came and went; `down_for_s` tells what was seen at the last call."""
        for outgoing in self._outgoing.values():
            outgoing.watch()

    def keep_only(self, peers: set[Peer]) -> None:
        """Close the links to everyone else."""
        wanted = {peer.hop for peer in peers}
        for key in self._outgoing.keys() - wanted:
            self._outgoing.pop(key).close()

    def close(self) -> None:
        """Close all; what was sent has `linger_s` to leave. A second call does nothing."""
        for outgoing in self._outgoing.values():
            outgoing.close()
        self._outgoing.clear()
        self._bound.close()
        self._context.term()  # ends the admission thread's recv, which closes the last socket
        self._admission.join()

    def _link_to(self, peer: Peer) -> _Outgoing:
        outgoing = self._outgoing.get(peer.hop)
        if outgoing is None:
            try:
                outgoing = self._outgoing[peer.hop] = self._open(peer)
            except zmq.ZMQError as error:
                raise LinkError(f"no link to {peer.endpoint}: {error}") from error
        return outgoing

    def _open(self, peer: Peer) -> _Outgoing:
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(self._context.socket(zmq.DEALER))
            self._options.apply(sock, peer.endpoint)
            sock.curve_serverkey = peer.hop[0]
            sock.curve_publickey = self._keys.public
            sock.curve_secretkey = self._keys.secret
            outgoing = _Outgoing(sock)
            undo.callback(outgoing.close)
            sock.connect(peer.endpoint)
            undo.pop_all()
        return outgoing

    def _receive_now(self, max_messages: int) -> list[Inbound]:
        received: list[Inbound] = []
        for _ in range(max_messages):
            # Asked first: an exception for every time that nothing is left costs more than the question.
            if len(received) >= max_messages or not cast(int, self._bound.get(zmq.EVENTS)) & zmq.POLLIN:
                break
            try:
                parts = self._bound.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:  # a new connection's key is there ahead of its first message
                break
            connection = parts.pop(0).bytes if self._bound_type == zmq.ROUTER else b""
            received += self._frames(connection, parts)
        return received

    def _frames(self, connection: bytes, parts: list[zmq.Frame]) -> Iterator[Inbound]:
        """A message's frames, two parts each; a malformed one is counted and does the others no harm."""
        if not 0 < len(parts) <= 2 * MAX_MESSAGE_FRAMES or len(parts) % 2:
            self.num_malformed += 1
            return
        sender, buffers = _sender_of(parts), [part.buffer for part in parts]
        self.traffic.received(sender, _size(buffers), len(parts) // 2)
        for begin in range(0, len(buffers), 2):
            try:
                yield Inbound(sender, decode(buffers[begin : begin + 2]), connection)
            except MalformedFrame as error:
                self.num_malformed += 1
                if isinstance(error, OtherWireVersion) and sender not in self._of_other_versions:
                    self._of_other_versions.add(sender)  # it goes on sending: once is enough
                    log.warning("frames of %s are dropped: %s", sender.hex(), error)


def _size(parts: Sequence[Buffer]) -> int:
    return sum(memoryview(part).nbytes for part in parts)


def _sender_of(parts: list[zmq.Frame]) -> bytes:
    """The link key that `ZapAnswers` let in, which ZeroMQ attaches to every part it receives on that connection."""
    return bytes.fromhex(cast(str, parts[0].get("User-Id")))
