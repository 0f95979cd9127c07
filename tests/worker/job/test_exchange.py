"""A node is exchanged while its job lives: over real links, between real engine threads, and nobody can tell."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from declai.chain.messages import sign
from declai.links.errors import LinkFull
from declai.protocol import wire
from declai.protocol.failures import FailureCode
from declai.protocol.jobs import StageJob, seal
from declai.protocol.peers import Peer
from declai.protocol.ring import MAX_EXCHANGES, Replacement, Replica, Ring, new_ring, seal_replacement
from declai.worker.engine.memory.kept_rows import RowsLost
from declai.worker.job import downstream
from declai.worker.tasks.changes import PendingChanges
from tests.support.parties import DOMAIN, Party
from tests.support.toy_engine import expected_tokens
from tests.support.toy_network import PROMPT, Network
from tests.support.waiting import wait_until

MAX_TOKENS = 60


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five rows, so that a replay has many."""
    monkeypatch.setattr(downstream, "MAX_REPLAY_BYTES", 80)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path)
    yield network
    network.close()


def ring_of(net: Network) -> Ring:
    return new_ring(net.gateway.peer, [node.party.peer for node in net.nodes], 0)


def begin(net: Network, jobs: list[StageJob], stage: int, num_tokens: int) -> None:
    """Run until a stage has work for its part of token number `num_tokens`, and does not do it."""
    net.nodes[stage].engine.pause_at = len(PROMPT) + num_tokens - 1
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: len(seen(net, jobs[0])) == num_tokens)


def die(net: Network, stage: int) -> None:
    """Without a word: neither to its neighbours nor to the gateway."""
    for entry in net.nodes[stage].engine_thread._jobs.values():
        entry.running._send_frame = lambda *_: None
    net.nodes[stage].stop()


def seen(net: Network, job: StageJob) -> list[int]:
    """The tokens as a gateway keeps them: the last ones before an exchange may come twice."""
    tokens: dict[int, int] = {}
    for _, frame in net.of(wire.Token, job):
        assert isinstance(frame, wire.Token)
        assert tokens.setdefault(frame.index, frame.token_id) == frame.token_id
    return [tokens[index] for index in range(len(tokens))]


def next_position(net: Network, job: StageJob) -> int:
    """From here on, rows may not have reached whoever is after them."""
    return len(PROMPT) + len(seen(net, job)) - 2 if seen(net, job) else 0


def replace(net: Network, jobs: list[StageJob], ring: Ring, stage: int) -> tuple[list[StageJob], Ring]:
    jobs, ring = net.replace(jobs, ring, stage, next_position(net, jobs[0]))
    net.nodes[stage].dispatch(seal(jobs[stage], net.gateway.signer))
    if stage == 0:
        new = net.nodes[stage].party.address
        net.until(lambda: new in {who for who, _ in net.of(wire.Ready, jobs[0])})
        net.prompt(jobs[0])
    return jobs, ring


def finish(net: Network, jobs: list[StageJob], max_tokens: int = MAX_TOKENS) -> None:
    net.until(lambda: net.finish(jobs[0]))
    expected = expected_tokens(PROMPT, net.num_layers, max_tokens)
    assert seen(net, jobs[0]) == expected
    net.check(jobs, expected)
    wait_until(lambda: all(node.idle for node in net.nodes))


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("num_tokens", [1, 2, 25])
def test_a_lost_node_is_replaced_and_the_tokens_are_the_same(net: Network, stage: int, num_tokens: int) -> None:
    jobs = net.jobs(max_tokens=MAX_TOKENS)
    begin(net, jobs, stage, num_tokens)
    die(net, stage)
    jobs, _ = replace(net, jobs, ring_of(net), stage)
    assert jobs[stage].ring.from_position == len(PROMPT) + num_tokens - 2
    finish(net, jobs)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_node_is_replaced_in_the_middle_of_the_prompt(net: Network, stage: int) -> None:
    jobs = net.jobs(max_tokens=MAX_TOKENS)
    net.nodes[stage].engine.pause_at = 4
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: len(net.nodes[stage].engine.sequences[jobs[0].job_id].rows) == len(PROMPT))
    die(net, stage)
    jobs, _ = replace(net, jobs, ring_of(net), stage)
    assert jobs[stage].ring.from_position == 0
    finish(net, jobs)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_node_is_replaced_at_any_moment(tmp_path: Path, stage: int) -> None:
    net = Network(tmp_path, delay_s=0.004)
    try:
        jobs = net.jobs(max_tokens=200)
        net.dispatch(jobs)
        net.prompt(jobs[0])
        net.until(lambda: len(seen(net, jobs[0])) >= 5)
        die(net, stage)
        jobs, _ = replace(net, jobs, ring_of(net), stage)
        finish(net, jobs, 200)
    finally:
        net.close()


def test_a_node_that_hangs_is_replaced_while_it_lives(net: Network) -> None:
    """It leaves without a word, even where its neighbours hear of it later."""
    jobs = net.jobs(max_tokens=MAX_TOKENS)
    begin(net, jobs, 1, 10)
    hanging = net.nodes[1]
    net.links.send(hanging.party.peer, wire.Failed(jobs[0].job_id, FailureCode.REPLACED, "too slow"))
    wait_until(lambda: hanging.idle)
    jobs, _ = replace(net, jobs, ring_of(net), 1)
    finish(net, jobs)
    assert hanging.store.earnings().num_receipts == 0


def test_what_a_replaced_node_says_later_belongs_to_nobody(net: Network) -> None:
    jobs = net.jobs(max_tokens=MAX_TOKENS)
    begin(net, jobs, 1, 10)
    hanging = net.nodes[1]
    jobs, _ = replace(net, jobs, ring_of(net), 1)
    net.until(lambda: len(seen(net, jobs[0])) > 12)
    hanging.engine.pause_at = 2**31
    net.links.send(hanging.party.peer, wire.Failed(jobs[0].job_id, "abandoned", "too slow"))
    finish(net, jobs)


def test_every_stage_but_one_may_be_replaced_one_after_the_other(net: Network) -> None:
    jobs, ring = net.jobs(max_tokens=MAX_TOKENS), ring_of(net)
    first = jobs[0]
    begin(net, jobs, 1, 8)
    for stage, next_stage, num_tokens in [(1, 2, 20), (2, 1, 35), (1, 2, MAX_TOKENS + 9)]:
        die(net, stage)
        net.nodes[next_stage].engine.pause_at = len(PROMPT) + num_tokens - 1
        jobs, ring = replace(net, jobs, ring, stage)
        net.until(lambda num_tokens=num_tokens: len(seen(net, first)) == min(num_tokens, MAX_TOKENS))
    assert [job.assignment.attempt for job in jobs] == [0, 2, 1]
    finish(net, jobs)


@pytest.mark.parametrize("stage", [0, 1])
def test_in_a_ring_of_two_the_other_stage_is_on_both_sides(tmp_path: Path, stage: int) -> None:
    net = Network(tmp_path, 2)
    try:
        jobs = net.jobs(max_tokens=MAX_TOKENS)
        begin(net, jobs, stage, 20)
        die(net, stage)
        jobs, _ = replace(net, jobs, ring_of(net), stage)
        finish(net, jobs)
    finally:
        net.close()


def test_a_replay_waits_out_a_link_that_is_full(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = net.jobs(max_tokens=MAX_TOKENS)
    begin(net, jobs, 1, 20)
    die(net, 1)
    links, calls = net.nodes[0].engine_thread._links, iter(range(10**9))
    send = links.send

    def often_full(peer: Peer, *frames: wire.Frame) -> None:
        if any(isinstance(frame, wire.Hidden) for frame in frames) and next(calls) % 3:
            raise LinkFull("full")
        send(peer, *frames)

    monkeypatch.setattr(links, "send", often_full)
    jobs, _ = replace(net, jobs, ring_of(net), 1)
    finish(net, jobs)


@pytest.mark.parametrize("wanted", ["float16", "int8"])
def test_a_rounded_prompt_is_sent_again_as_it_was(net: Network, wanted: wire.PromptFormat) -> None:
    jobs = [
        job.model_copy(
            update={
                "prompt_format_in": wanted if job.stage else "profile",
                "prompt_format_out": wanted if job.stage < 2 else "profile",
            }
        )
        for job in net.jobs(max_tokens=MAX_TOKENS)
    ]
    begin(net, jobs, 1, 15)
    die(net, 1)
    jobs, _ = replace(net, jobs, ring_of(net), 1)
    finish(net, jobs)


def test_rows_that_are_kept_no_more_end_the_job_with_the_reason(net: Network) -> None:
    jobs = net.jobs(max_tokens=MAX_TOKENS)
    begin(net, jobs, 1, 5)
    die(net, 1)

    def lost(*_: object) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        raise RowsLost("a hole")

    running = next(iter(net.nodes[0].engine_thread._jobs.values())).running
    running._downstream._kept_rows = lost
    replace(net, jobs, ring_of(net), 1)
    net.until(lambda: net.of(wire.Failed, jobs[0]))
    assert "rows_lost" in {f.code for _, f in net.of(wire.Failed, jobs[0])}  # type: ignore[union-attr]
    net.wait_idle()


def test_all_replicas_of_a_stage_compute_and_sign_and_one_is_heard(net: Network) -> None:
    party, ring, jobs = Party(), ring_of(net), net.jobs(max_tokens=MAX_TOKENS)
    net.registry.add(party)
    second = net.new_node(party, cut=(net.nodes[1].engine.first, net.nodes[1].engine.end))
    net.left.append(second)
    two = (*ring.stages[1], Replica(peer=party.peer, number=1))
    ring = dataclasses.replace(ring, stages=(ring.stages[0], two, ring.stages[2]))
    jobs = [StageJob.model_validate(job.model_dump() | {"ring": ring.view(job.stage)}) for job in jobs]
    assignment = jobs[1].assignment.model_copy(update={"node": party.address})
    own = {
        "assignment": assignment,
        "assignment_signature": sign(assignment, DOMAIN, net.gateway.signer),
        "ring": ring.view(1, 1),
    }
    net.dispatch(jobs)
    second.dispatch(seal(StageJob.model_validate(jobs[1].model_dump() | own), net.gateway.signer))
    net.prompt(jobs[0])
    net.until(lambda: len({who for who, _ in net.of(wire.Receipt, jobs[0])}) == 4)
    assert net.tokens(jobs[0]) == expected_tokens(PROMPT, net.num_layers, MAX_TOKENS)
    frames = {who: frame for who, frame in net.of(wire.Receipt, jobs[0]) if isinstance(frame, wire.Receipt)}
    assert bytes(frames[party.address].payload) == bytes(frames[jobs[1].assignment.node].payload)
    assert second.engine_thread.status().dropped.get("foreign", 0) == 0


Forge = Callable[[Network, StageJob, Replacement], wire.Replaced]
FORGERIES: dict[str, Forge] = {
    "another signer": lambda net, job, change: seal_replacement(change, net.stranger.signer),
    "another job": lambda net, job, change: seal_replacement(
        change.model_copy(update={"job": bytes(32)}), net.gateway.signer
    ),
    "no signature": lambda net, job, change: wire.Replaced(job.job_id, change.model_dump_json(), bytes(65)),
    "no replacement": lambda net, job, change: wire.Replaced(job.job_id, "{}", bytes(65)),
    "an unknown key": lambda net, job, change: seal_replacement(
        change.model_copy(update={"replica": change.replica.model_copy(update={"peer": Party().peer})}),
        net.gateway.signer,
    ),
    "an endpoint of the gateway's choice": lambda net, job, change: seal_replacement(
        change.model_copy(
            update={
                "replica": change.replica.model_copy(
                    update={"peer": change.replica.peer.model_copy(update={"endpoint": "tcp://127.0.0.1:9"})}
                )
            }
        ),
        net.gateway.signer,
    ),
    "this node itself": lambda net, job, change: seal_replacement(
        change.model_copy(update={"replica": change.replica.model_copy(update={"peer": net.nodes[0].party.peer})}),
        net.gateway.signer,
    ),
    "an attempt too many": lambda net, job, change: seal_replacement(
        change.model_copy(update={"replica": change.replica.model_copy(update={"attempt": 2})}), net.gateway.signer
    ),
    "no attempt more": lambda net, job, change: seal_replacement(
        change.model_copy(update={"replica": change.replica.model_copy(update={"attempt": 0})}), net.gateway.signer
    ),
    "no such place": lambda net, job, change: seal_replacement(
        change.model_copy(update={"replica": change.replica.model_copy(update={"number": 1})}), net.gateway.signer
    ),
    "not beside": lambda net, job, change: seal_replacement(change.model_copy(update={"stage": 0}), net.gateway.signer),
    "a position that never comes": lambda net, job, change: seal_replacement(
        change.model_copy(update={"replica": change.replica.model_copy(update={"from_position": 10**5})}),
        net.gateway.signer,
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_change_that_is_not_the_gateways_word_changes_nothing(net: Network, forgery: str) -> None:
    jobs, ring = net.jobs(max_tokens=MAX_TOKENS), ring_of(net)
    begin(net, jobs, 1, 2)
    replica = ring.with_node(1, 0, net.stranger.peer, 3).stages[1][0]
    change = Replacement(job=jobs[0].job_id, stage=1, replica=replica)
    net.send(0, FORGERIES[forgery](net, jobs[0], change))
    net.send(0, wire.ReceiptAck(bytes(32), bytes(65)))  # counted once all before it was looked at
    net.until(lambda: net.nodes[0].engine_thread.status().dropped.get("unknown_job", 0) > 0)
    net.nodes[1].engine.pause_at = 2**31
    net.nodes[1].engine_thread._links.wake()
    finish(net, jobs)


CHEAPLY_SEEN = ["no replacement", "an attempt too many", "no such place", "not beside"]


@pytest.mark.parametrize("forgery", CHEAPLY_SEEN)
def test_a_change_that_cannot_follow_takes_no_signature_and_no_look_at_the_chain(net: Network, forgery: str) -> None:
    jobs, ring = net.jobs(max_tokens=MAX_TOKENS), ring_of(net)
    begin(net, jobs, 1, 2)
    checked: list[object] = []
    net.nodes[0].engine_thread._on_replaced = lambda *what: checked.append(what)
    change = Replacement(job=jobs[0].job_id, stage=1, replica=ring.with_node(1, 0, net.stranger.peer, 3).stages[1][0])
    net.send(0, FORGERIES[forgery](net, jobs[0], change))
    net.until(lambda: net.nodes[0].engine_thread.status().dropped.get("foreign", 0) > 0)
    assert not checked
    net.nodes[1].engine.pause_at = 2**31
    net.nodes[1].engine_thread._links.wake()
    finish(net, jobs)


def test_a_gateway_exchanges_a_node_so_often_and_no_more(net: Network) -> None:
    ring = ring_of(net)
    for _ in range(MAX_EXCHANGES):
        ring = ring.with_node(1, 0, net.stranger.peer, 3)
    with pytest.raises(ValueError, match="begin a new attempt"):
        ring.with_node(1, 0, net.stranger.peer, 3)
    ring.with_node(0, 0, net.stranger.peer, 3)


def test_a_place_changes_hands_so_often_and_no_more(net: Network) -> None:
    jobs = net.jobs(max_tokens=MAX_TOKENS)
    begin(net, jobs, 1, 2)
    running = net.nodes[0].engine_thread._jobs[jobs[0].job_id].running

    def has(replica: Replica) -> bool:
        return replica in running._ring.downstream

    for attempt in range(jobs[0].attempt + 1, jobs[0].attempt + MAX_EXCHANGES + 2):
        party = Party()
        net.registry.add(party)
        replica = Replica(peer=party.peer, attempt=attempt, from_position=3)
        net.send(0, seal_replacement(Replacement(job=jobs[0].job_id, stage=1, replica=replica), net.gateway.signer))
        if attempt <= jobs[0].attempt + MAX_EXCHANGES:
            net.until(partial(has, replica))
    net.until(lambda: net.nodes[0].engine_thread.status().dropped.get("foreign", 0) > 0)
    assert running._ring.downstream[0].attempt == jobs[0].attempt + MAX_EXCHANGES
    net.until(lambda: net.of(wire.Failed, jobs[0]))
    net.nodes[1].engine.pause_at = 2**31
    net.nodes[1].engine_thread._links.wake()
    net.wait_idle()


def test_of_the_changes_of_one_place_the_newest_alone_waits(net: Network) -> None:
    jobs, ring = net.jobs(max_tokens=MAX_TOKENS), ring_of(net)
    busy, checked = threading.Event(), list[tuple[int, int]]()

    def check(job: StageJob, change: Replacement, frame: wire.Replaced) -> None:
        checked.append((change.stage, change.replica.from_position))
        busy.wait(20)

    with closing(PendingChanges(check)) as changes:
        for position in range(1000):
            for stage in (1, 2):
                replica = ring.with_node(stage, 0, net.stranger.peer, position).stages[stage][0]
                change = Replacement(job=jobs[0].job_id, stage=stage, replica=replica)
                changes.put(jobs[0], change, wire.Replaced(jobs[0].job_id, "", bytes(65)))
                wait_until(lambda: checked)
        busy.set()
        wait_until(lambda: len(checked) == 3)
    assert checked[0] == (1, 0)
    assert sorted(checked[1:]) == [(1, 999), (2, 999)]


def test_the_gateway_alone_tells_of_changes_and_may_do_so_twice(net: Network) -> None:
    jobs, ring = net.jobs(max_tokens=MAX_TOKENS), ring_of(net)
    begin(net, jobs, 1, 10)
    strangers = ring.with_node(1, 0, net.stranger.peer, 3).stages[1][0]
    stranger = net.stranger_links()
    try:
        word = seal_replacement(Replacement(job=jobs[0].job_id, stage=1, replica=strangers), net.gateway.signer)
        stranger.send(net.nodes[0].party.peer, word)
        net.until(lambda: net.nodes[0].engine_thread.status().dropped.get("foreign", 0) > 0)
    finally:
        stranger.close()
    die(net, 1)
    jobs, ring = replace(net, jobs, ring, 1)
    again = Replacement(job=jobs[0].job_id, stage=1, replica=ring.stages[1][0])
    for stage in (0, 2):
        net.send(stage, seal_replacement(again, net.gateway.signer))
    finish(net, jobs)
