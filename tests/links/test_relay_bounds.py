"""What may wait at the relay, whoever takes nothing: no sockets, so that a test says what is read and what is not."""

from __future__ import annotations

import itertools

import pytest

from declai.links.errors import LinkGone
from declai.links.relay import FRAME_BYTES, MIB, Relay, RelayLimits
from declai.links.seals import Seals
from declai.protocol import wire
from declai.protocol.peers import Peer
from tests.support.parties import curve_pair

JOB = b"j" * 32
LIMITS = RelayLimits(node_bytes=MIB, all_bytes=2 * MIB)
ENDPOINT = "tcp://127.0.0.1:8082"
NUMBERS = itertools.count(1)


class Sockets:
    """Connections that take whatever is sent, unless they are cut off."""

    def __init__(self) -> None:
        self.keys = curve_pair()
        self.seals = Seals(*self.keys)
        self.cut: set[bytes] = set()
        self.sent: list[tuple[bytes, wire.Relayed]] = []

    def answer(self, connection: bytes, frame: wire.Frame) -> None:
        if connection in self.cut:
            raise LinkGone("gone")
        if isinstance(frame, wire.Relayed):
            self.sent.append((connection, frame))


class Bench:
    """A relay, and the nodes around it."""

    def __init__(self) -> None:
        self.sockets = Sockets()
        self.ended: list[bytes] = []
        self.relay = Relay(self.sockets, self.sockets.keys[0], LIMITS, lambda job, node: self.ended.append(job))
        self.sender = self.node(relayed=False)

    def node(self, relayed: bool = True) -> Peer:
        address, key = f"0x{next(NUMBERS):040x}", curve_pair()[0]
        return Peer(address=address, link_key=key, endpoint=ENDPOINT, relay=self.sockets.keys[0] if relayed else None)

    def forward(self, job: bytes, to: Peer, num_bytes: int) -> None:
        self.relay.forward(self.sender.link_key, wire.Relayed(job, to.link_key, bytes(num_bytes)))

    def fill(self, to: Peer) -> None:
        """As many bytes as the relay takes for this node, which reads nothing, in two jobs."""
        for job in (next(NUMBERS).to_bytes(32, "big") for _ in range(2)):
            self.relay.open(job, [self.sender, to])
            while job not in self.ended:
                self.forward(job, to, 16 * 1024)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_words_on_jobs_that_are_over_do_not_pile_up(bench: Bench) -> None:
    relay, node, away = bench.relay, bench.node(), bench.node()
    relay.listening(node.link_key, b"\0one", wire.Listening())
    for peer in (node, away):  # one reads nothing, one was never there; both ask for the same word again and again
        for _ in range(100):
            relay.send(peer, wire.ReceiptAck(JOB, bytes(65)))
    [(_, word)] = bench.sockets.sent
    assert relay.num_bytes_waiting < 2 * FRAME_BYTES
    relay.listening(node.link_key, b"\0one", wire.Listening(word.ticket))
    assert relay.num_bytes_waiting == 0
    relay.send(node, wire.ReceiptAck(JOB, bytes(65)))  # it was read, and may be said again
    assert len(bench.sockets.sent) == 2


def test_what_was_read_on_one_connection_is_not_read_on_the_next(bench: Bench) -> None:
    relay, node, weight = bench.relay, bench.node(), 100_000 + FRAME_BYTES
    relay.open(JOB, [bench.sender, node])
    relay.listening(node.link_key, b"\0one", wire.Listening())
    bench.forward(JOB, node, 100_000)
    relay.listening(node.link_key, b"\0two", wire.Listening())
    (_, first), (connection, again) = bench.sockets.sent
    assert (connection, again.payload) == (b"\0two", first.payload)
    relay.listening(node.link_key, b"\0two", wire.Listening(first.ticket))
    assert relay.num_bytes_waiting == 2 * weight  # the second copy lies with ZeroMQ, as the first may
    relay.listening(node.link_key, b"\0two", wire.Listening(again.ticket))
    assert relay.num_bytes_waiting == weight


def test_a_few_nodes_that_take_nothing_leave_room_for_the_others(bench: Bench) -> None:
    for number in range(5):
        hog = bench.node()
        bench.relay.listening(hog.link_key, b"\0hog%d" % number, wire.Listening())
        bench.fill(hog)
    node = bench.node()
    bench.relay.listening(node.link_key, b"\0node", wire.Listening())
    bench.relay.open(JOB, [bench.sender, node])
    bench.forward(JOB, node, 16 * 1024)
    assert JOB not in bench.ended
    assert bench.sockets.sent[-1][0] == b"\0node"
    assert bench.relay.num_bytes_waiting <= LIMITS.all_bytes


def test_what_went_to_nodes_that_never_come_back_takes_no_room(bench: Bench) -> None:
    for number in range(5):
        gone = bench.node()
        connection = b"\0gone%d" % number
        bench.relay.listening(gone.link_key, connection, wire.Listening())
        bench.fill(gone)
        bench.sockets.cut.add(connection)
    node = bench.node()
    bench.relay.listening(node.link_key, b"\0node", wire.Listening())
    bench.relay.open(JOB, [bench.sender, node])
    bench.forward(JOB, node, 400_000)
    assert JOB not in bench.ended
    assert bench.sockets.sent[-1][0] == b"\0node"
