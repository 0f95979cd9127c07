"""Round trips and bandwidths that nodes measure of each other: over lines with a known delay and a known width."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from declai.links import probes
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.links.probes import LinkProbes
from declai.protocol import wire
from declai.protocol.peers import Peer
from declai.protocol.wire import LinkReport, Ping, Pong
from tests.support.parties import Party, curve_pair
from tests.support.proxy import TcpProxy
from tests.support.toy_network import QUICK_LINKS, Network
from tests.support.waiting import wait_until

NEAR = Party().peer
FAR = Party().peer
LARGE = probes.LARGE_BYTES


class Node:
    """Links that are polled by hand, and the node's probes."""

    def __init__(self) -> None:
        keys = LinkKeyPair(*curve_pair())
        self.links = NodeLinks(keys, "tcp://127.0.0.1:0", lambda key: True, QUICK_LINKS)
        self.party = Party(link=(keys.public, b""), endpoint=self.links.endpoint)
        self.probes = LinkProbes()

    def at(self, endpoint: str) -> Peer:
        return Party(operator=self.party.operator, link=self.party.link, endpoint=endpoint).peer


@pytest.fixture
def ends() -> Iterator[tuple[Node, Node]]:
    made = Node(), Node()
    yield made
    for node in made:
        node.links.close()


def answer(node: Node, asker: Peer) -> None:
    for inbound in node.links.poll(0.005):
        if isinstance(inbound.frame, Ping):
            node.links.send(asker, Pong(inbound.frame.id))


def until_answered(node: Node, other: Node, asker: Peer) -> None:
    deadline = time.monotonic() + 20
    while True:
        assert time.monotonic() < deadline, "no answer came"
        answer(other, asker)
        for inbound in node.links.poll(0.001):
            assert isinstance(inbound.frame, Pong)
            if node.probes.take(inbound.sender, inbound.frame, time.monotonic()):
                return


def measure_round_trip(node: Node, other: Node, peer: Peer, asker: Peer) -> None:
    for _ in range(3):
        ((_, ping),) = node.probes.due([peer], time.monotonic())
        node.links.send(peer, ping)
        until_answered(node, other, asker)


def test_a_delayed_line_shows_as_its_round_trip(ends: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PING_EVERY_S", 0.0)
    here, there = ends
    with (
        TcpProxy(there.links.endpoint, delay_s=0.025) as forth,
        TcpProxy(here.links.endpoint, delay_s=0.025) as back,
    ):
        peer = there.at(forth.endpoint)
        measure_round_trip(here, there, peer, here.at(back.endpoint))
        (report,) = here.probes.reports()
    assert report.address == peer.address
    assert 0.050 <= report.rtt_s < 0.075
    assert report.bytes_per_s is None


def test_a_narrow_line_shows_as_its_bandwidth(ends: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PING_EVERY_S", 0.0)
    here, there = ends
    with TcpProxy(there.links.endpoint, delay_s=0.025, bytes_per_s=10e6) as line:
        peer = there.at(line.endpoint)
        measure_round_trip(here, there, peer, here.party.peer)
        for _ in range(4):
            frame = wire.Hidden(bytes(32), 0, 1, "float32", os.urandom(2**20))
            began = time.monotonic()
            here.links.send(peer, frame)
            ping = here.probes.behind(peer, 2**20, began)
            assert ping is not None
            here.links.send(peer, ping)
            until_answered(here, there, here.party.peer)
        (report,) = here.probes.reports()
    assert report.bytes_per_s is not None
    assert 6e6 < report.bytes_per_s <= 10.5e6


def test_neighbours_in_a_running_job_are_measured_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PING_EVERY_S", 0.05)
    net = Network(tmp_path, 2)
    try:
        with TcpProxy(net.nodes[1].party.endpoint, delay_s=0.025) as line:
            net.nodes[1].party.endpoint = line.endpoint
            jobs = net.jobs(max_tokens=20)
            net.nodes[0].engine_thread.beat_to([net.gateway.peer])
            net.dispatch(jobs)
            net.prompt(jobs[0])
            net.until(lambda: net.finish(jobs[0]))
            far = net.nodes[1].party.address

            def reported() -> list[float]:
                beats = [f for _, f in net.frames if isinstance(f, wire.Heartbeat)]
                return [r.rtt_s for beat in beats for r in wire.unpack_reports(beat.links) if r.address == far]

            net.until(reported)
            assert 0.025 <= reported()[-1] < 0.05
            net.receipts(jobs)
    finally:
        net.close()


@pytest.fixture
def soon_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    monkeypatch.setattr(probes, "PING_EVERY_S", 0.05)
    monkeypatch.setattr(probes, "LOST_S", 0.4)
    net = Network(tmp_path, 2, delay_s=0.005)
    yield net
    net.close()


def test_a_neighbour_that_does_its_work_but_answers_no_ping_is_reported_as_far(
    soon_lost: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud, silent = soon_lost.nodes
    monkeypatch.setattr(silent.engine_thread._neighbours._probes, "may_answer", lambda sender, now: False)
    jobs = soon_lost.jobs(max_tokens=5000)
    soon_lost.dispatch(jobs)
    soon_lost.prompt(jobs[0])
    soon_lost.until(lambda: loud.engine_thread.status().links)
    assert loud.engine_thread.status().links == (LinkReport(silent.party.address, 0.4, None),)
    soon_lost.until(lambda: silent.engine_thread.status().links)
    assert silent.engine_thread.status().links[0].rtt_s < 0.4


def test_no_gateway_makes_a_node_seem_far_by_a_job_that_it_never_gave_it(soon_lost: Network) -> None:
    jobs = soon_lost.jobs(max_tokens=5000)
    soon_lost.dispatch(jobs, order=[0])
    asked = soon_lost.nodes[0].engine_thread._neighbours._probes
    wait_until(lambda: soon_lost.nodes[0].engine_thread.status().num_jobs == 1)
    prompt = soon_lost.prompt_ids
    soon_lost.send(0, wire.Prompt(jobs[0].job_id, len(prompt), struct.pack(f"<{len(prompt)}I", *prompt)))
    wait_until(lambda: soon_lost.nodes[1].engine_thread.status().dropped.get("foreign", 0) > probes.MOST_LOST + 1)
    assert asked.reports() == []


def test_a_stranger_gets_no_answer(tmp_path: Path) -> None:
    net = Network(tmp_path, 2)
    try:
        stranger = net.stranger_links()
        stranger.send(net.nodes[0].party.peer, Ping(1))
        net.until(lambda: net.nodes[0].engine_thread.status().dropped.get("foreign"))
        stranger.close()
    finally:
        net.close()


def test_answers_are_few_for_each_sender_and_for_many_senders_bounded() -> None:
    mine = LinkProbes()
    answered = [mine.may_answer(NEAR.link_key, 10 + n / 100) for n in range(100)]
    assert sum(answered) == probes.MAX_ANSWERS_PER_S
    assert mine.may_answer(NEAR.link_key, 11.0)
    assert mine.may_answer(FAR.link_key, 11.0)
    for n in range(1000):
        mine.may_answer(n.to_bytes(32), 12.0)
    assert len(mine._answered_at) <= wire.MAX_LINK_REPORTS


def test_one_ping_is_under_way_and_a_lost_one_is_given_up() -> None:
    mine = LinkProbes()
    ((_, first),) = mine.due([NEAR], 0.0)
    assert mine.due([NEAR], 5.0) == []
    ((_, second),) = mine.due([NEAR], probes.LOST_S)
    assert not mine.take(NEAR.link_key, Pong(first.id), 11.0)
    assert not mine.take(FAR.link_key, Pong(second.id), 11.0)
    assert mine.take(NEAR.link_key, Pong(second.id), 11.0)
    assert not mine.take(NEAR.link_key, Pong(second.id), 11.0)
    assert mine.reports() == [LinkReport(NEAR.address, 1.0, None)]


def test_who_does_not_answer_is_far_until_it_does() -> None:
    mine, now = LinkProbes(), 0.0
    ((_, ping),) = mine.due([NEAR], now)
    assert mine.take(NEAR.link_key, Pong(ping.id), now + 0.01)
    for number in range(probes.MOST_LOST + 2):
        now += probes.LOST_S
        assert mine.reports() == [LinkReport(NEAR.address, 0.01, None)], f"after {number} pings"
        ((_, ping),) = mine.due([NEAR], now)
    assert mine.reports() == [LinkReport(NEAR.address, probes.LOST_S, None)]
    assert mine.take(NEAR.link_key, Pong(ping.id), now + 0.02)
    assert mine.reports() == [LinkReport(NEAR.address, 0.01, None)]


def test_nobody_can_answer_a_ping_before_it_came() -> None:
    """Who knew the next id could answer at once, and seem near."""
    mine = LinkProbes()
    seen: set[int] = set()
    for now in range(5):
        ((_, ping),) = mine.due([NEAR], float(now))
        assert not any(mine.take(NEAR.link_key, Pong(n + step), now) for n in seen for step in range(1, 9))
        assert mine.take(NEAR.link_key, Pong(ping.id), now + 0.01)
        seen.add(ping.id)


def test_the_best_of_the_last_few_counts() -> None:
    mine, now = LinkProbes(), 0.0
    for rtt_s in [0.01, *[0.03] * (probes.NUM_SAMPLES - 1)]:
        ((_, ping),) = mine.due([NEAR], now)
        mine.take(NEAR.link_key, Pong(ping.id), now + rtt_s)
        now += 2
    assert mine.reports()[0].rtt_s == pytest.approx(0.01)
    ((_, ping),) = mine.due([NEAR], now)
    mine.take(NEAR.link_key, Pong(ping.id), now + 0.03)
    assert mine.reports()[0].rtt_s == pytest.approx(0.03)


def test_only_a_large_frame_on_a_quiet_link_with_a_known_round_trip_is_measured() -> None:
    mine = LinkProbes()
    assert mine.behind(NEAR, LARGE, 0.0) is None
    ((_, ping),) = mine.due([NEAR], 1.0)
    mine.take(NEAR.link_key, Pong(ping.id), 1.01)
    assert mine.behind(NEAR, LARGE - 1, 2.0) is None
    ping = mine.behind(NEAR, LARGE, 2.0)
    assert ping is not None
    assert mine.behind(NEAR, LARGE, 2.1) is None
    mine.take(NEAR.link_key, Pong(ping.id), 2.11)
    assert mine.reports()[0].bytes_per_s == pytest.approx(LARGE / 0.1)
    assert mine.behind(NEAR, LARGE, 4.0) is not None


def test_what_is_old_is_forgotten_and_a_peer_that_moved_starts_anew() -> None:
    mine = LinkProbes()
    ((_, ping),) = mine.due([NEAR], 0.0)
    mine.take(NEAR.link_key, Pong(ping.id), 0.5)
    moved = NEAR.model_copy(update={"endpoint": "tcp://127.0.0.1:2"})
    ((_, ping),) = mine.due([moved], 5.0)
    assert mine.reports() == []
    mine.take(NEAR.link_key, Pong(ping.id), 5.5)
    assert mine.due([], 5.5 + probes.FORGET_S) == []
    assert len(mine.reports()) == 1
    mine.due([], 5.6 + probes.FORGET_S)
    assert mine.reports() == []
