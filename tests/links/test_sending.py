"""Slow and broken lines: a job waits for a link that is full, and goes on, or ends clearly, after a cut."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from declai.links.errors import LinkError, LinkFull
from declai.links.sending import MAX_MESSAGE_BYTES, MAX_WAITING_FRAMES, Sender
from declai.protocol import wire
from declai.protocol.jobs import StageJob
from declai.protocol.peers import Peer
from declai.protocol.wire import MAX_MESSAGE_FRAMES
from tests.support.parties import Party
from tests.support.proxy import TcpProxy
from tests.support.toy_engine import expected_tokens
from tests.support.toy_network import QUICK_LINKS, Network
from tests.support.waiting import wait_until

NEAR, FAR = Party().peer, Party().peer
JOB, OTHER = bytes(32), b"\1" * 32
A, B, C = (bytes([number]) * 32 for number in range(3))


class Line:
    """Links that can be full."""

    def __init__(self) -> None:
        self.full: set[Peer] = set()
        self.sent: list[tuple[Peer, wire.Frame]] = []
        self.messages: list[tuple[wire.Frame, ...]] = []

    def send(self, peer: Peer, *frames: wire.Frame) -> None:
        if peer in self.full:
            raise LinkFull("full")
        self.messages.append(frames)
        self.sent += [(peer, frame) for frame in frames]


def token(job: bytes, index: int) -> wire.Token:
    return wire.Token(job, index, 10 + index, 7)


def hidden(job: bytes, position: int) -> wire.Hidden:
    return wire.Hidden(job, position, 1, "float32", bytes(16))


def test_what_a_step_makes_for_a_peer_leaves_in_one_message() -> None:
    line, here, there = Line(), Party().peer, Party().peer
    sender = Sender(line.send)
    frames = [hidden(bytes([number]) * 32, 5) for number in range(MAX_MESSAGE_FRAMES + 1)]
    with sender.together():
        for frame in frames:
            sender.send(here, frame)
        sender.send(there, token(A, 0))
        assert not line.sent
    assert sender.flush() == {}
    assert line.messages == [tuple(frames[:-1]), (frames[-1],), (token(A, 0),)]


def test_large_frames_travel_alone() -> None:
    line, peer = Line(), Party().peer
    sender = Sender(line.send)
    large = wire.Hidden(A, 0, 1, "float32", bytes(MAX_MESSAGE_BYTES))
    with sender.together():
        for frame in (large, hidden(B, 0), hidden(C, 0), large):
            sender.send(peer, frame)
    sender.flush()
    assert [len(message) for message in line.messages] == [1, 2, 1]


def test_to_some_peers_frames_go_one_by_one() -> None:
    line, peer = Line(), Party().peer
    sender = Sender(line.send, may_join=lambda peer: False)
    with sender.together():
        sender.send(peer, hidden(A, 0))
        sender.send(peer, hidden(B, 0))
    sender.flush()
    assert [len(message) for message in line.messages] == [1, 1]


def test_what_a_step_makes_waits_for_a_full_link_in_order() -> None:
    line, peer = Line(), Party().peer
    sender = Sender(line.send)
    line.full.add(peer)
    sender.send(peer, hidden(A, 0))
    with sender.together():
        sender.send(peer, hidden(A, 1))
        sender.send(peer, hidden(B, 0))
    assert sender.flush() == {}
    assert sender.waiting_jobs == {A, B}
    line.full.clear()
    sender.ended(B, failed=True, now=0.0)
    sender.flush()
    assert line.sent == [(peer, hidden(A, 0)), (peer, hidden(A, 1))]
    assert not sender.waiting_jobs


def test_a_job_that_fails_in_a_step_sends_nothing_more_but_that() -> None:
    line, peer = Line(), Party().peer
    sender = Sender(line.send)
    with sender.together():
        sender.send(peer, hidden(A, 0))
        sender.send(peer, hidden(B, 0))
        sender.send(peer, wire.Failed(A, "engine_error"))
        sender.ended(A, failed=True, now=0.0)
    sender.flush()
    assert line.messages == [(hidden(B, 0), wire.Failed(A, "engine_error"))]


def test_jobs_whose_frames_can_never_be_sent_are_named() -> None:
    def broken(peer: Peer, *frames: wire.Frame) -> None:
        raise LinkError("no socket")

    sender = Sender(broken)
    with sender.together():
        sender.send(FAR, hidden(A, 0))
    ((job, (peer, error)),) = sender.flush().items()
    assert (job, peer, str(error)) == (A, FAR, "no socket")
    assert not sender.waiting_jobs


def test_frames_wait_in_order_and_no_other_link_waits_with_them() -> None:
    line = Line()
    sender = Sender(line.send)
    line.full = {NEAR}
    for index in range(3):
        sender.send(NEAR, token(JOB, index))
        sender.send(FAR, token(OTHER, index))
    assert sender.waiting_jobs == {JOB}
    assert line.sent == [(FAR, token(OTHER, index)) for index in range(3)]
    sender.flush()
    assert sender.waiting_jobs == {JOB}
    line.full, line.sent = set(), []
    sender.send(NEAR, token(JOB, 3))
    assert line.sent == []
    sender.flush()
    assert line.sent == [(NEAR, token(JOB, index)) for index in range(4)]
    assert sender.waiting_jobs == set()


def test_what_may_wait_is_bounded_for_each_job_alone() -> None:
    line = Line()
    sender = Sender(line.send)
    line.full = {NEAR}
    for index in range(MAX_WAITING_FRAMES):
        sender.send(NEAR, token(JOB, index))
    with pytest.raises(LinkFull):
        sender.send(NEAR, token(JOB, MAX_WAITING_FRAMES))
    sender.send(NEAR, token(OTHER, 0))
    assert sender.waiting_jobs == {JOB, OTHER}
    sender.send(NEAR, wire.Failed(JOB, "because"))
    sender.ended(JOB, failed=True, now=0.0)
    line.full = set()
    sender.flush()
    assert [frame for _, frame in line.sent] == [token(OTHER, 0), wire.Failed(JOB, "because")]


def test_a_ready_never_waits_for_it_is_said_again_anyway() -> None:
    """A job that is about to begin at a stage whose link others fill would end by its own `ready`s."""
    line = Line()
    sender = Sender(line.send)
    line.full = {NEAR}
    sender.send(NEAR, token(OTHER, 0))
    for _ in range(MAX_WAITING_FRAMES + 1):
        sender.send(NEAR, wire.Ready(JOB))
    assert sender.waiting_jobs == {OTHER}


def test_a_job_whose_frame_can_never_be_sent_takes_no_other_with_it() -> None:
    line, sent = Line(), list[wire.Frame]()

    def send(peer: Peer, *frames: wire.Frame) -> None:
        line.send(peer, *frames)
        if frames[0].job == B:  # type: ignore[union-attr]
            raise ValueError("no such frame")
        sent.extend(frames)

    sender = Sender(send, may_join=lambda peer: False)
    line.full = {NEAR}
    with sender.together():
        for job in (A, B, C, B):
            sender.send(NEAR, hidden(job, 0))
    assert sender.flush() == {}
    line.full = set()
    assert list(sender.flush()) == [B]
    assert sent == [hidden(A, 0), hidden(C, 0)]
    assert sender.flush() == {}


def test_of_a_failed_job_only_that_it_failed_still_leaves() -> None:
    line = Line()
    sender = Sender(line.send)
    line.full = {NEAR}
    for frame in (token(JOB, 0), token(OTHER, 0), wire.Failed(JOB, "because")):
        sender.send(NEAR, frame)
    sender.ended(JOB, failed=True, now=1.0)
    line.full = set()
    sender.flush()
    assert [frame for _, frame in line.sent] == [token(OTHER, 0), wire.Failed(JOB, "because")]


def test_the_last_words_are_said_again_to_a_peer_that_is_back_until_they_are_forgotten() -> None:
    line = Line()
    sender = Sender(line.send)
    finish = wire.Finish(JOB, "stop", 2)
    for frame in (token(JOB, 0), token(JOB, 1), finish):
        sender.send(NEAR, frame)
    for position in range(3):
        sender.send(NEAR, hidden(OTHER, position))
    sender.send(FAR, token(JOB, 0))
    sender.ended(JOB, failed=False, now=5.0)
    sender.forget_ended_before(4.0)
    line.sent = []
    sender.is_back(NEAR)
    sender.flush()
    assert [frame for _, frame in line.sent] == [token(JOB, 1), finish, hidden(OTHER, 2)]
    assert sender.peers == {NEAR, FAR}
    sender.forget_ended_before(6.0)
    line.sent = []
    sender.is_back(NEAR)
    sender.flush()
    assert [frame for _, frame in line.sent] == [hidden(OTHER, 2)]
    assert sender.peers == {NEAR}


def test_what_waits_for_a_peer_that_is_gone_is_forgotten() -> None:
    """Else every job that failed by it would leave a frame, and the link to it would stay open for good."""
    line = Line()
    sender = Sender(line.send)
    line.full = {NEAR, FAR}
    for peer in (NEAR, FAR):
        sender.send(peer, hidden(JOB, 0))
        sender.send(peer, wire.Failed(JOB, "peer_lost"))
    sender.ended(JOB, failed=True, now=0.0)
    sender.forget_ended_before(1.0)
    sender.is_gone(NEAR)
    sender.is_gone(Party().peer)
    assert sender.peers == {FAR}


def test_last_words_are_said_again_behind_what_others_wait_to_say() -> None:
    line = Line()
    sender = Sender(line.send)
    for frame in (token(A, 0), token(B, 0), wire.Finish(B, "stop", 1)):
        sender.send(NEAR, frame)
    line.full, line.sent = {NEAR}, []
    sender.send(NEAR, token(A, 1))
    sender.is_back(NEAR)
    line.full = set()
    sender.flush()
    assert [frame for _, frame in line.sent] == [token(A, 1), token(B, 0), wire.Finish(B, "stop", 1)]


def test_last_words_that_cannot_be_sent_harm_nobody_else() -> None:
    """A job's gateway may name a peer whose link key is none: nothing can be sealed for it."""

    class Closed(Line):
        def send(self, peer: Peer, *frames: wire.Frame) -> None:
            if peer == FAR:
                raise LinkError("no link key")
            super().send(peer, *frames)

    line = Closed()
    sender = Sender(line.send)
    with pytest.raises(LinkError):
        sender.send(FAR, token(JOB, 0))
    sender.send(NEAR, token(OTHER, 0))
    sender.is_back(FAR)
    sender.is_back(NEAR)
    assert list(sender.flush()) == [JOB]
    assert [frame for _, frame in line.sent] == [token(OTHER, 0), token(OTHER, 0)]


def test_a_stage_waits_for_a_slow_reader_and_then_goes_on(tmp_path: Path) -> None:
    """100 frames of 256 KiB to a neighbour that reads nothing for a while: far more than links and sockets hold."""
    net = Network(tmp_path, 2, row_bytes=65536, options=replace(QUICK_LINKS, high_water_messages=4))
    net.prompt_ids = [number % 11 for number in range(400)]
    try:
        with TcpProxy(net.nodes[1].party.endpoint) as line:
            net.nodes[1].party.endpoint = line.endpoint
            jobs = net.jobs(max_tokens=5)
            job = jobs[0].job_id
            net.dispatch(jobs)
            net.until(lambda: net.of(wire.Ready, jobs[0]))
            line.hold()
            net.prompt(jobs[0])
            sequence = net.nodes[0].engine.sequences[job]
            # Until all that is between the two has filled up it goes on in steps; then it stands, well before the end.
            while True:
                computed = sequence.num_computed
                time.sleep(0.4)
                if sequence.is_held and sequence.num_computed == computed:
                    break
            assert 0 < computed < 400
            line.go_on()
            net.until(lambda: net.finish(jobs[0]))
            expected = expected_tokens(net.prompt_ids, net.num_layers, 5)
            assert net.tokens(jobs[0]) == expected
            net.check(jobs, expected)
            net.wait_idle()
    finally:
        net.close()


@pytest.fixture
def cuttable(tmp_path: Path) -> Iterator[tuple[Network, list[TcpProxy]]]:
    """Three nodes and a gateway; every link goes through a proxy."""
    net = Network(tmp_path, 3, delay_s=0.002)
    with ExitStack() as opened:
        opened.callback(net.close)
        proxies = []
        for party in (net.gateway, *(node.party for node in net.nodes)):
            proxies.append(opened.enter_context(TcpProxy(party.endpoint)))
            party.endpoint = proxies[-1].endpoint
        yield net, proxies


def tokens_once(net: Network, job: StageJob) -> list[int]:
    by_index = {frame.index: frame.token_id for _, frame in net.of(wire.Token, job)}  # type: ignore[union-attr]
    return [by_index[index] for index in sorted(by_index)]


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_job_survives_short_cuts_of_any_link_while_it_makes_tokens(
    cuttable: tuple[Network, list[TcpProxy]], cut: int
) -> None:
    net, proxies = cuttable
    jobs = net.jobs(max_tokens=60)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    for wanted in (5, 20, 35):
        net.until(lambda wanted=wanted: len(tokens_once(net, jobs[0])) >= wanted)
        proxies[cut].cut()
    net.until(lambda: net.finish(jobs[0]))
    expected = expected_tokens(net.prompt_ids, net.num_layers, 60)
    net.until(lambda: len(tokens_once(net, jobs[0])) == 60)
    assert tokens_once(net, jobs[0]) == expected
    net.check(jobs, expected)
    net.wait_idle()


def test_a_cut_in_a_prompt_ends_the_job_clearly_or_loses_nothing(tmp_path: Path) -> None:
    net = Network(tmp_path, 2, row_bytes=65536)
    net.prompt_ids = [number % 11 for number in range(200)]
    try:
        with TcpProxy(net.nodes[1].party.endpoint, bytes_per_s=50e6) as line:
            net.nodes[1].party.endpoint = line.endpoint
            jobs = net.jobs(max_tokens=5)
            net.dispatch(jobs)
            net.prompt(jobs[0])
            wait_until(lambda: len(net.nodes[1].engine.sequences[jobs[0].job_id].rows) > 20)
            line.cut()
            net.until(lambda: net.finish(jobs[0]) or net.of(wire.Failed, jobs[0]))
            if failed := net.of(wire.Failed, jobs[0]):
                assert {f.code for _, f in failed} == {"position_mismatch"}  # type: ignore[union-attr]
            else:
                net.check(jobs, expected_tokens(net.prompt_ids, net.num_layers, 5))
            net.wait_idle()
    finally:
        net.close()


def test_a_cut_before_the_clock_has_seen_a_link_ends_the_job_clearly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a prompt is lost on a link that came up and was cut within one tick: nothing follows to show it."""
    monkeypatch.setattr("declai.worker.job.engine_thread.TICK_S", 2.0)
    net = Network(tmp_path, 2, delay_s=0.01)
    net.prompt_ids = [number % 11 for number in range(120)]
    try:
        with TcpProxy(net.nodes[1].party.endpoint) as line:
            net.nodes[1].party.endpoint = line.endpoint
            jobs = net.jobs(max_tokens=5)
            net.dispatch(jobs)
            net.prompt(jobs[0])
            job_id = jobs[0].job_id
            wait_until(lambda: len(net.nodes[1].engine.sequences[job_id].rows) > 8)
            line.hold()
            wait_until(lambda: net.nodes[0].engine.sequences[job_id].num_computed == 120)
            line.cut()
            line.go_on()
            net.until(lambda: net.of(wire.Failed, jobs[0]))
            assert {f.code for _, f in net.of(wire.Failed, jobs[0])} == {"position_mismatch"}  # type: ignore[union-attr]
            net.wait_idle()
    finally:
        net.close()
