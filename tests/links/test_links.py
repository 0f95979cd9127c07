"""Links: who may connect, who is behind a frame, what a full or broken link does."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
import zmq
from pydantic import ValidationError

from declai.links.errors import LinkError, LinkFull, LinkKeyError
from declai.links.gateway_links import GatewayLinks
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.links.sockets import Inbound, LinkOptions
from declai.protocol import wire
from declai.protocol.peers import Peer
from tests.support.parties import curve_pair
from tests.support.waiting import wait_until

ADDRESS = "0x" + "22" * 20
QUICK = LinkOptions(high_water_messages=8, handshake_timeout_s=0.5, reconnect_s=0.02, linger_s=0.1)


class Net:
    """A few links that know each other's keys."""

    def __init__(self) -> None:
        self.registered: set[bytes] = set()
        self.open: list[NodeLinks] = []

    def links(
        self, *, registered: bool = True, bind: str = "tcp://127.0.0.1:0", keys: LinkKeyPair | None = None
    ) -> NodeLinks:
        keys = keys or LinkKeyPair(*curve_pair())
        if registered:
            self.registered.add(keys.public)
        made = NodeLinks(keys, bind, self.registered.__contains__, QUICK)
        made.keys = keys  # type: ignore[attr-defined]
        self.open.append(made)
        return made


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net()
    yield made
    for links in made.open:
        links.close()


def peer_of(links: NodeLinks) -> Peer:
    return Peer(address=ADDRESS, link_key=links.keys.public, endpoint=links.endpoint)  # type: ignore[attr-defined]


def receive(links: NodeLinks, count: int = 1, timeout_s: float = 10) -> list[Inbound]:
    got: list[Inbound] = []
    deadline = time.monotonic() + timeout_s
    while len(got) < count and time.monotonic() < deadline:
        got += links.poll(0.05)
    return got


def test_a_frame_arrives_with_the_key_of_its_sender(net: Net) -> None:
    a, b = net.links(), net.links()
    payload = os.urandom(300_000 * 4)
    a.send(peer_of(b), wire.Hidden(bytes(32), 3, 300, "float32", payload))
    a.send(peer_of(b), wire.Ready(bytes(32)))
    first, second = receive(b, 2)
    assert first.sender == second.sender == a.keys.public  # type: ignore[attr-defined]
    assert first.frame == wire.Hidden(bytes(32), 3, 300, "float32", payload)
    assert second.frame == wire.Ready(bytes(32))


def test_frames_of_one_message_arrive_together_and_a_malformed_one_harms_no_other(net: Net) -> None:
    node, friend = net.links(), net.links()
    frames = [wire.Hidden(bytes([k]) * 32, k, 1, "float32", bytes([k]) * 8) for k in range(5)]
    friend.send(peer_of(node), *frames)
    assert [(inbound.sender, inbound.frame.job) for inbound in receive(node)] == [
        (friend.keys.public, frame.job)  # type: ignore[attr-defined]
        for frame in frames
    ]
    raw = friend._link_to(peer_of(node)).socket
    raw.send_multipart([*wire.encode(frames[0]), b"no header", b"", *wire.encode(frames[1])])
    assert [inbound.frame.job for inbound in receive(node)] == [frames[0].job, frames[1].job]
    assert node.num_malformed == 1


def test_a_message_with_more_frames_than_anyone_joins_is_malformed_as_a_whole(net: Net) -> None:
    node, friend = net.links(), net.links()
    ready = wire.Ready(bytes(32))
    friend.connect(peer_of(node))
    friend._link_to(peer_of(node)).socket.send_multipart((wire.MAX_MESSAGE_FRAMES + 1) * wire.encode(ready))
    friend.send(peer_of(node), *wire.MAX_MESSAGE_FRAMES * [ready])
    assert len(receive(node, wire.MAX_MESSAGE_FRAMES)) == wire.MAX_MESSAGE_FRAMES
    assert node.num_malformed == 1


def test_a_flood_of_malformed_messages_holds_up_no_poll(net: Net) -> None:
    node, hostile = net.links(), net.links()
    raw = hostile._link_to(peer_of(node)).socket
    for _ in range(8):
        raw.send_multipart([b"no header", b""])
    wait_until(lambda: bool(node._bound.get(zmq.EVENTS) & zmq.POLLIN))
    assert node.poll(1.0, max_messages=1) == []
    assert node.num_malformed == 1


def test_an_unregistered_key_is_refused_and_admitted_once_registered(net: Net) -> None:
    node, stranger = net.links(), net.links(registered=False)
    stranger.send(peer_of(node), wire.Ready(bytes(32)))
    wait_until(lambda: node.num_refused > 0)
    assert receive(node, timeout_s=0.3) == []
    net.registered.add(stranger.keys.public)  # type: ignore[attr-defined]
    assert [inbound.frame for inbound in receive(node)] == [wire.Ready(bytes(32))]


def test_a_failing_registry_refuses_and_the_link_lives_on(net: Net) -> None:
    answers: list[bool | None] = [None]

    def admit(key: bytes) -> bool:
        if answers[-1] is None:
            raise OSError("registry out of reach")
        return answers[-1]

    keys = LinkKeyPair(*curve_pair())
    node = NodeLinks(keys, "tcp://127.0.0.1:0", admit, QUICK)
    try:
        node.keys = keys  # type: ignore[attr-defined]
        net.links().send(peer_of(node), wire.Ready(bytes(32)))
        wait_until(lambda: node.num_refused > 0)
        answers.append(True)
        assert len(receive(node)) == 1
    finally:
        node.close()


def test_a_peer_of_another_version_is_named_once_in_the_log(net: Net, caplog: pytest.LogCaptureFixture) -> None:
    node, peer = net.links(), net.links()
    header, payload = wire.encode(wire.Ready(bytes(32)))
    newer = msgpack.packb(msgpack.unpackb(header) | {"v": wire.VERSION + 1, "more": 1})
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sock = context.socket(zmq.DEALER)
    keys = peer.keys  # type: ignore[attr-defined]
    sock.curve_serverkey, sock.curve_publickey, sock.curve_secretkey = node.keys.public, keys.public, keys.secret  # type: ignore[attr-defined]
    sock.connect(node.endpoint)
    for _ in range(3):
        sock.send_multipart([newer, payload])
    sock.send_multipart([header, payload])
    assert [inbound.frame for inbound in receive(node)] == [wire.Ready(bytes(32))]
    assert node.num_malformed == 3
    (record,) = caplog.records
    assert f"frames of {keys.public.hex()} are dropped" in record.getMessage()
    assert f"version {wire.VERSION + 1} of the wire format, this program {wire.VERSION}" in record.getMessage()
    context.destroy(linger=0)


CHOSEN_NAMES = """
import asyncio, sys, time, zmq
from declai.links.gateway_links import GatewayLinks
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.protocol import wire

pair = LinkKeyPair(*map(zmq.utils.z85.decode, zmq.curve_keypair()))
def raw(endpoint, name=None):
    sock = zmq.Context.instance().socket(zmq.DEALER)
    sock.linger = 0
    if name:
        sock.routing_id = name
    sock.curve_serverkey = zmq.utils.z85.encode(pair.public)
    sock.curve_publickey, sock.curve_secretkey = zmq.curve_keypair()
    sock.connect(endpoint)
    sock.send_multipart(wire.encode(wire.Ready(bytes(32))))
    return sock

def node():
    links = NodeLinks(pair, "tcp://127.0.0.1:0", lambda key: True)
    name = bytes.fromhex("006b8b4567")
    def arrived():
        while not (got := links.poll(1)):
            pass
        return got[0]
    for _ in range(3):
        kept = raw(links.endpoint)
        name = arrived().connection or name
        name = name[:1] + (int.from_bytes(name[1:], "big") + 1).to_bytes(4, "big")
        taken = raw(links.endpoint, name)
        arrived()
    print("alive", flush=True)

async def gateway():
    links = GatewayLinks(pair, "tcp://127.0.0.1:0", lambda key: True)
    kept = raw(links.endpoint)
    [inbound] = await links.receive()
    print(inbound.connection.hex(), flush=True)

node() if sys.argv[1] == "node" else asyncio.run(gateway())
"""


def in_a_process_of_its_own(face: str) -> str:
    done = subprocess.run([sys.executable, "-c", CHOSEN_NAMES + "\nimport os; os._exit(0)", face], capture_output=True)
    return done.stdout.decode()


def test_a_peer_that_chooses_the_name_of_a_connection_does_not_end_a_node() -> None:
    """ZeroMQ aborts where a ROUTER is about to choose a name that a peer chose before."""
    assert in_a_process_of_its_own("node") == "alive\n"


def test_nobody_can_foretell_the_names_of_a_gateways_connections() -> None:
    first, second = in_a_process_of_its_own("gateway"), in_a_process_of_its_own("gateway")
    assert len(first) == len(second) == 11
    assert first != second


def test_speech_without_curve_and_noise_on_the_port_change_nothing(net: Net) -> None:
    node, friend = net.links(), net.links()
    host, port = node.endpoint.removeprefix("tcp://").rsplit(":", 1)
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.linger = 0
    plain.connect(node.endpoint)
    plain.send_multipart(wire.encode(wire.Ready(bytes(32))))
    for _ in range(30):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(secrets.token_bytes(secrets.randbelow(2000)))
    friend.send(peer_of(node), wire.Cancel(bytes(32)))
    assert [inbound.frame.kind for inbound in receive(node)] == ["cancel"]
    context.destroy()


def test_malformed_messages_are_counted_and_dropped(net: Net) -> None:
    node, friend = net.links(), net.links()
    friend.connect(peer_of(node))
    raw = friend._link_to(peer_of(node)).socket
    for parts in ([b""], [b"", b""], [os.urandom(50), b"x"], [b"\x80", b""], [b"a", b"b", b"c"]):
        raw.send_multipart(parts)
    friend.send(peer_of(node), wire.Ready(bytes(32)))
    assert len(receive(node)) == 1
    assert node.num_malformed == 5


def test_a_full_link_raises_and_never_waits(net: Net) -> None:
    a = net.links()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = Peer(address=ADDRESS, link_key=bytes(32), endpoint=f"tcp://127.0.0.1:{closed.getsockname()[1]}")
        for _ in range(QUICK.high_water_messages):
            a.send(nobody, wire.Ready(bytes(32)))
        with pytest.raises(LinkFull):
            a.send(nobody, wire.Ready(bytes(32)))


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:0", "tcp://127.0.0.1:65536", "ipc:///x", "tcp://a b:1", "tcp://x"]
)
def test_a_peer_has_a_tcp_endpoint(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        Peer(address=ADDRESS, link_key=bytes(32), endpoint=endpoint)


def test_a_port_that_is_taken_raises(net: Net) -> None:
    with pytest.raises(LinkError):
        net.links(bind=net.links().endpoint)


def test_a_process_that_may_open_no_more_sockets_raises_and_the_open_links_live_on(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect_to_many() -> None:
        for _ in range(16):
            node.connect(Peer(address=ADDRESS, link_key=curve_pair()[0], endpoint="tcp://127.0.0.1:9"))

    monkeypatch.setattr("declai.links.sockets.MAX_SOCKETS", 16)
    node, friend = net.links(), net.links()
    node.send(peer_of(friend), wire.Ready(bytes(32)))
    with pytest.raises(LinkError):
        connect_to_many()
    node.send(peer_of(friend), wire.Cancel(bytes(32)))
    assert [inbound.frame.kind for inbound in receive(friend, 2)] == ["ready", "cancel"]


def test_a_lost_peer_is_noticed_and_found_again(net: Net) -> None:
    a, b = net.links(), net.links()
    peer = peer_of(b)

    def down() -> bool:
        a.watch_peers()
        return a.down_for_s(peer) > 0

    a.connect(peer)
    assert a.down_for_s(peer) > 0
    wait_until(lambda: not down())
    b.close()
    net.open.remove(b)
    wait_until(down)
    again = net.links(bind=b.endpoint, keys=b.keys)  # type: ignore[attr-defined]
    wait_until(lambda: not down())
    a.send(peer, wire.Ready(bytes(32)))
    assert len(receive(again)) == 1


def test_links_to_peers_no_longer_needed_are_closed(net: Net) -> None:
    a, b, c = net.links(), net.links(), net.links()
    a.connect(peer_of(b))
    a.connect(peer_of(c))
    a.keep_only({peer_of(c)})
    assert set(a._outgoing) == {(c.keys.public, c.endpoint)}  # type: ignore[attr-defined]


def test_wake_ends_a_poll(net: Net) -> None:
    links = net.links()
    for _ in range(100_000):
        links.wake()
    started = time.monotonic()
    assert links.poll(60) == []
    assert time.monotonic() - started < 30


async def test_the_gateways_face_awaits_frames_and_answers(net: Net) -> None:
    node, keys = net.links(), LinkKeyPair(*curve_pair())
    net.registered.add(keys.public)
    gateway = GatewayLinks(keys, "tcp://127.0.0.1:0", net.registered.__contains__, QUICK)
    try:
        peer = Peer(address=ADDRESS, link_key=keys.public, endpoint=gateway.endpoint)
        waiting = asyncio.create_task(gateway.receive())
        await asyncio.sleep(0)
        for i in range(20):
            node.send(peer, wire.Token(bytes(32), i, i, i)) if i < 5 else None
        got = await asyncio.wait_for(waiting, 10)
        while len(got) < 5:
            got += await asyncio.wait_for(gateway.receive(), 10)
        assert [inbound.frame.index for inbound in got if isinstance(inbound.frame, wire.Token)] == list(range(5))
        gateway.send(peer_of(node), wire.Cancel(bytes(32)))
        assert (await asyncio.to_thread(receive, node))[0].sender == keys.public
    finally:
        gateway.close()


async def test_a_flood_leaves_the_event_loop_to_others(net: Net) -> None:
    num_frames = 200
    options = LinkOptions(high_water_messages=2 * num_frames)  # nothing is refused: the whole flood waits to be read
    pairs = LinkKeyPair(*curve_pair()), LinkKeyPair(*curve_pair())
    net.registered.update(pair.public for pair in pairs)
    node, gateway = (GatewayLinks(keys, "tcp://127.0.0.1:0", net.registered.__contains__, options) for keys in pairs)
    peer = Peer(address=ADDRESS, link_key=pairs[1].public, endpoint=gateway.endpoint)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    for _ in range(num_frames):
        node.send(peer, wire.Ready(bytes(32)))
    task = asyncio.create_task(others())
    try:
        async with asyncio.timeout(10):
            for _ in range(num_frames):
                turns_before = turns
                assert len(await gateway.receive(max_messages=1)) == 1
                assert turns > turns_before
    finally:
        task.cancel()
        gateway.close()
        node.close()


def test_link_keys_are_kept_private_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "link.key"
    made = LinkKeyPair.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert LinkKeyPair.load(path) == made
    assert made.secret.hex() not in repr(made)
    assert repr(made.secret) not in repr(made)
    with pytest.raises(LinkKeyError):
        LinkKeyPair.create(path)
    path.chmod(0o644)
    with pytest.raises(LinkKeyError):
        LinkKeyPair.load(path)
    path.chmod(0o600)
    LinkKeyPair.create(tmp_path / "other.key")
    for content in (
        b"",
        b"abc",
        b"x" * 40,
        path.read_bytes().split()[0] + b"\n" + (tmp_path / "other.key").read_bytes().split()[1],
    ):
        path.write_bytes(content)
        with pytest.raises(LinkKeyError):
            LinkKeyPair.load(path)
