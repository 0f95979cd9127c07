"""The relay over real sockets: who may use it, what hostile parties can do with it, and what outlives a broken link."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
import zmq.utils.z85 as z85

from declai.api.nodes.hub import LinkHub
from declai.links.errors import LinkGone
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.links.relay import MIB, Connections, RelayLimits
from declai.links.seals import FRAME_BYTES, Seals
from declai.links.sockets import Inbound, LinkOptions
from declai.protocol import wire
from declai.protocol.peers import Peer
from tests.support.cable import Cable
from tests.support.parties import curve_pair

JOB = b"j" * 32
LIMITS = RelayLimits(node_bytes=MIB, all_bytes=2 * MIB)
QUICK = LinkOptions(handshake_timeout_s=0.5, reconnect_s=0.02, max_reconnect_s=0.1, linger_s=0.1)


class Node:
    """A node's links; `relayed` ones listen nowhere, but on their own link to the gateway."""

    def __init__(self, number: int, relayed: bool, registered: Callable[[bytes], bool]) -> None:
        self.keys = LinkKeyPair(*curve_pair())
        self.address = f"0x{number:040x}"
        self.relayed = relayed
        self.links = NodeLinks(self.keys, None if relayed else "tcp://127.0.0.1:0", registered, QUICK)
        self.got: list[Inbound] = []

    def poll(self) -> list[Inbound]:
        self.links.watch_peers()
        self.got += self.links.poll(0)
        return self.got

    @property
    def frames(self) -> list[wire.Frame]:
        return [inbound.frame for inbound in self.got]


class World:
    """A gateway's hub and nodes around it. `until` lets everybody but those in `asleep` look at their sockets."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.asleep: set[Node] = set()
        self.beats: list[bytes] = []
        self.keys = LinkKeyPair(*curve_pair())
        self.bind = "tcp://127.0.0.1:0"
        self.open_hub()

    def open_hub(self) -> None:
        directory: Any = SimpleNamespace(
            admits=self.is_registered,
            is_relayed=lambda key: any(node.relayed for node in self.nodes if node.keys.public == key),
            beat=lambda key, frame: self.beats.append(key),
        )
        self.hub = LinkHub(self.keys, self.bind, directory, LIMITS)
        self.bind = self.hub.endpoint

    @property
    def gateway(self) -> Peer:
        return Peer(address=f"0x{99:040x}", link_key=self.keys.public, endpoint=self.bind)

    def is_registered(self, key: bytes) -> bool:
        return any(node.keys.public == key for node in self.nodes)

    def node(self, relayed: bool = False, through: Peer | None = None) -> Node:
        made = Node(len(self.nodes) + 1, relayed, lambda key: key == self.keys.public or self.is_registered(key))
        self.nodes.append(made)
        if relayed:
            made.links.listen_through(through or self.gateway)
        return made

    def peer(self, node: Node) -> Peer:
        if not node.relayed:
            return Peer(address=node.address, link_key=node.keys.public, endpoint=node.links.endpoint)
        relay = {"endpoint": self.bind, "relay": self.keys.public}
        return Peer(address=node.address, link_key=node.keys.public, **relay)  # type: ignore[arg-type]

    def peers(self, *nodes: Node) -> list[Peer]:
        return [self.peer(node) for node in nodes]

    @contextmanager
    def open(self, job: bytes, *members: Node) -> Iterator[list[tuple[str, wire.JobFrame]]]:
        """A job between these nodes; yields what the gateway hears of them."""
        heard: list[tuple[str, wire.JobFrame]] = []
        with self.hub.open(job, self.peers(*members), lambda address, frame: heard.append((address, frame))):
            yield heard

    async def until(self, condition: Callable[[], object], timeout_s: float = 15) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                for node in self.nodes:
                    if node not in self.asleep:
                        node.poll()
                await asyncio.sleep(0.005)

    async def listening(self, *nodes: Node) -> None:
        def all_listen() -> bool:
            known = self.hub.relay._nodes
            return all(n.keys.public in known and known[n.keys.public].connection for n in nodes)

        await self.until(all_listen)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for node in made.nodes:
        node.links.close()
    await made.hub.close()


async def test_frames_reach_a_node_that_binds_nothing_and_name_their_sender(world: World) -> None:
    a, b = world.node(), world.node(relayed=True)
    payload = os.urandom(64 * 1024)
    with world.open(JOB, a, b):
        a.links.send(world.peer(b), wire.Hidden(JOB, 0, 4, "float32", payload))
        world.hub.send(world.peer(b), wire.Cancel(JOB))
        await world.until(lambda: len(b.got) == 2)
    by_sender = {inbound.sender: inbound.frame for inbound in b.got}
    assert by_sender[a.keys.public] == wire.Hidden(JOB, 0, 4, "float32", payload)
    assert by_sender[world.keys.public] == wire.Cancel(JOB)
    assert world.hub.relay.counts.num_frames == 2
    await world.until(lambda: world.hub.relay.num_bytes_waiting == 0)


async def test_two_relayed_nodes_speak_with_each_other_and_with_the_gateway(world: World) -> None:
    a, b = world.node(relayed=True), world.node(relayed=True)
    with world.open(JOB, a, b) as heard:
        for n in range(50):
            a.links.send(world.peer(b), wire.Token(JOB, n, n, n))
        b.links.send(world.peer(a), wire.Ready(JOB))
        a.links.send(world.gateway, wire.Ready(JOB))
        await world.until(lambda: len(b.got) == 50 and len(a.got) == 1 and heard)
    assert heard == [(a.address, wire.Ready(JOB))]
    assert b.frames == [wire.Token(JOB, n, n, n) for n in range(50)]


async def test_the_relay_is_for_members_of_a_running_job(world: World) -> None:
    a, b, stranger, near = world.node(), world.node(relayed=True), world.node(), world.node()
    relay = world.hub.relay
    await world.listening(b)

    def refused(number: int) -> Callable[[], bool]:
        return lambda: relay.counts.num_refused == number

    a.links.send(world.peer(b), wire.Ready(JOB))  # no such job
    await world.until(refused(1))
    with world.open(JOB, a, b, near):
        stranger.links.send(world.peer(b), wire.Ready(JOB))
        await world.until(refused(2))
        a.links.send(world.peer(b), wire.Ready(b"o" * 32))
        await world.until(refused(3))
        through = {"endpoint": world.bind, "relay": world.keys.public}
        reachable = Peer(address=near.address, link_key=near.keys.public, **through)  # type: ignore[arg-type]
        a.links.send(reachable, wire.Ready(JOB))
        await world.until(refused(4))
        a.links.send(world.peer(b), wire.Ready(JOB))
        await world.until(lambda: b.got)
    a.links.send(world.peer(b), wire.Ready(JOB))  # the job is over
    await world.until(refused(5))
    assert len(b.poll()) == 1


async def test_an_unregistered_sender_does_not_reach_the_relay(world: World) -> None:
    b, keys = world.node(relayed=True), LinkKeyPair(*curve_pair())
    stranger = NodeLinks(keys, None, lambda key: True, QUICK)
    try:
        with world.open(JOB, b):
            stranger.send(world.peer(b), wire.Ready(JOB))
            await world.until(lambda: world.hub._links.num_refused > 0)
            assert world.hub.relay.counts.num_refused == 0
            assert b.poll() == []
    finally:
        stranger.close()


class Hostile:
    """A gateway's connections that send every relayed frame changed, as somebody else's, whole, and then once more."""

    def __init__(self, inner: Connections, other: bytes) -> None:
        self.inner, self.other, self.seals = inner, other, inner.seals

    def answer(self, connection: bytes, frame: wire.Frame) -> None:
        assert isinstance(frame, wire.Relayed)
        changed = bytearray(frame.payload)
        changed[-1] ^= 1
        for job, peer, payload in (
            (frame.job, frame.peer, bytes(changed)),
            (frame.job, self.other, frame.payload),
            (b"o" * 32, frame.peer, frame.payload),
            (frame.job, frame.peer, frame.payload),
            (frame.job, frame.peer, frame.payload),
        ):
            self.inner.answer(connection, wire.Relayed(job, peer, payload, frame.ticket))
        self.inner.answer(connection, wire.Failed(frame.job, "made_up"))


async def test_what_a_hostile_gateway_changes_forges_or_repeats_is_dropped_and_counted(world: World) -> None:
    a, b, other = world.node(), world.node(relayed=True), world.node()
    world.hub.relay._connections = Hostile(world.hub.relay._connections, other.keys.public)
    sent = [wire.Token(JOB, n, n, n) for n in range(20)]
    with world.open(JOB, a, b, other):
        for frame in sent:
            a.links.send(world.peer(b), frame)
        await world.until(lambda: b.links.num_unsealed["relay_malformed"] == len(sent))
    assert b.frames == sent
    assert {inbound.sender for inbound in b.got} == {a.keys.public}
    assert b.links.num_unsealed == {"relay_forged": 60, "relay_repeated": 20, "relay_malformed": 20}


async def test_a_flood_ends_its_own_job_and_holds_no_more_than_the_bound(world: World) -> None:
    a, c, b = world.node(), world.node(), world.node(relayed=True)
    relay, other = world.hub.relay, b"o" * 32
    await world.listening(b)
    world.asleep.add(b)
    most = 0

    def watch() -> None:
        nonlocal most
        most = max(most, relay.num_bytes_waiting)

    with world.open(JOB, a, b) as flooded, world.open(other, c, b) as calm:
        c.links.send(world.peer(b), wire.Ready(other))
        row = os.urandom(16 * 1024)
        for number in itertools.count():
            if relay.counts.num_overflows:
                break
            with suppress(Exception):  # our own link may be full
                a.links.send(world.peer(b), wire.Hidden(JOB, number, 1, "float32", row))
            await world.until(lambda: True)
            await asyncio.sleep(0.001)
            watch()
        assert most <= LIMITS.node_bytes // 2 + 2 * FRAME_BYTES
        ((address, frame),) = flooded
        assert (address, getattr(frame, "code", "")) == (b.address, "relay_full")
        num_refused = relay.counts.num_refused
        for number in range(20):
            with suppress(Exception):
                a.links.send(world.peer(b), wire.Hidden(JOB, number, 1, "float32", row))
        await world.until(lambda: relay.counts.num_refused > num_refused)  # the job is over
        world.asleep.clear()
        c.links.send(world.peer(b), wire.Finish(other, "stop", 1))
        await world.until(lambda: wire.Finish(other, "stop", 1) in b.frames)
        assert wire.Ready(other) in b.frames
        assert calm == []
    await world.until(lambda: relay.num_bytes_waiting == 0)


async def test_nodes_that_never_come_share_a_bound(world: World) -> None:
    a, away = world.node(), [world.node(relayed=True, through=None) for _ in range(6)]
    world.asleep.update(away)
    for node in away:
        node.links.close()
    relay = world.hub.relay
    for number, node in enumerate(away):
        job = bytes([number]) * 32
        relay.open(job, world.peers(a, node))
        for _ in range(40):
            relay.forward(a.keys.public, wire.Relayed(job, node.keys.public, bytes(16 * 1024)))
    assert relay.counts.num_overflows == len(away)
    assert relay.num_bytes_waiting <= LIMITS.all_bytes
    relay.keep_only([])
    assert relay.num_bytes_waiting == 0
    world.nodes = [a]


async def test_frames_outlive_a_lost_connection_and_come_once_and_in_order(world: World) -> None:
    cable = Cable(world.bind)
    a = world.node()
    way = Peer(address=world.gateway.address, link_key=world.keys.public, endpoint=cable.endpoint)
    b = world.node(relayed=True, through=way)
    await world.listening(b)
    sent = [wire.Token(JOB, n, n, n) for n in range(60)]
    try:
        with world.open(JOB, a, b):
            for number, frame in enumerate(sent):
                if number in (20, 40):
                    await world.until(lambda least=number - 10: len(b.got) >= least)  # type: ignore[misc]
                    cable.cut()
                a.links.send(world.peer(b), frame)
            await world.until(lambda: len(b.got) >= len(sent))
    finally:
        cable.close()
    assert b.frames == sent


async def test_a_gateway_that_starts_again_finds_its_nodes_again(world: World) -> None:
    a, b = world.node(), world.node(relayed=True)
    await world.listening(b)
    await world.hub.close()
    world.open_hub()
    await world.listening(b)
    with world.open(JOB, a, b):
        a.links.send(world.peer(b), wire.Ready(JOB))
        await world.until(lambda: b.got)
    assert b.got == [Inbound(a.keys.public, wire.Ready(JOB))]


async def test_a_connection_whose_name_the_peer_chose_is_no_way_back(world: World) -> None:
    b = world.node(relayed=True)
    world.asleep.add(b)
    context = zmq.Context()
    raw = context.socket(zmq.DEALER)
    raw.linger = 0
    raw.routing_id = b"the one of somebody else"
    raw.curve_serverkey = world.keys.public
    raw.curve_publickey, raw.curve_secretkey = (z85.encode(key) for key in (b.keys.public, b.keys.secret))
    raw.connect(world.bind)
    raw.send_multipart(wire.encode(wire.Listening()))
    await world.until(lambda: world.hub.relay.counts.num_refused == 1)
    assert world.hub.relay._nodes[b.keys.public].connection is None
    context.destroy()


async def test_a_reachable_node_cannot_have_itself_relayed(world: World) -> None:
    a = world.node()
    a.links.connect(world.gateway)
    a.links._link_to(world.gateway).socket.send_multipart(wire.encode(wire.Listening()))
    a.links.send(world.gateway, wire.Heartbeat(bytes(32), "bafy", 0, 1, 0, 1, 0.0))
    await world.until(lambda: world.beats)
    assert world.hub.relay._nodes == {}


async def test_old_connections_that_are_not_read_count_until_they_are_gone(world: World) -> None:
    relay, key = world.hub.relay, b"k" * 32
    alive: set[bytes] = {b"\0one"}

    class Sockets:
        seals = Seals(*curve_pair())

        def answer(self, connection: bytes, frame: wire.Frame) -> None:
            if connection not in alive:
                raise LinkGone("gone")

    relay._connections = Sockets()
    receiver = Peer(address=f"0x{7:040x}", link_key=key, endpoint=world.bind, relay=world.keys.public)
    a = world.node()
    relay.open(JOB, [world.peer(a), receiver])
    relay.listening(key, b"\0one", wire.Listening())
    relay.forward(a.keys.public, wire.Relayed(JOB, key, bytes(100_000)))
    alive.add(b"\0two")
    relay.listening(key, b"\0two", wire.Listening())
    assert relay.num_bytes_waiting == 2 * (100_000 + FRAME_BYTES)
    relay.close(JOB)
    assert relay.num_bytes_waiting == 2 * (100_000 + FRAME_BYTES)
    relay.listening(key, b"\0one", wire.Listening())  # back on the one that it left
    alive.add(b"\0three")
    relay.listening(key, b"\0three", wire.Listening())
    alive.add(b"\0four")
    relay.listening(key, b"\0four", wire.Listening())  # one too many at a time
    assert relay._nodes[key].connection == b"\0three"
    assert relay.counts.num_refused == 2
    assert relay.num_bytes_waiting == 2 * (100_000 + FRAME_BYTES)
    alive -= {b"\0one", b"\0two"}
    relay.listening(key, b"\0four", wire.Listening())
    assert relay._nodes[key].connection == b"\0four"
    assert relay.num_bytes_waiting == 0
