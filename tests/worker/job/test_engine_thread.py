"""Jobs through real links and engine threads: tokens, receipts that verify, and everything that can go wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from declai.chain.messages import new_account, sign
from declai.protocol import wire
from declai.protocol.jobs import StageJob
from declai.protocol.options import GenerationOptions, Grammar, Sampling
from declai.protocol.peers import Peer
from declai.protocol.receipts import SignedReceipt
from declai.worker.job.store import NodeStore
from tests.support.parties import DOMAIN
from tests.support.toy_engine import ToyEngine, expected_tokens
from tests.support.toy_network import PROMPT, Network, ToyNode
from tests.support.waiting import wait_until


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path)
    yield network
    network.close()


@pytest.fixture
def slow_net(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path, delay_s=0.002)
    yield network
    network.close()


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 4])
def test_tokens_come_and_receipts_verify(tmp_path: Path, num_nodes: int) -> None:
    net = Network(tmp_path, num_nodes)
    try:
        jobs = net.jobs(max_tokens=70)
        net.dispatch(jobs, order=list(reversed(range(num_nodes))))
        net.prompt(jobs[0])
        net.until(lambda: net.finish(jobs[0]))
        expected = expected_tokens(PROMPT, net.num_layers, 70)
        assert net.tokens(jobs[0]) == expected
        assert net.finish(jobs[0]) == wire.Finish(jobs[0].job_id, "length", 70)
        receipts = net.check(jobs, expected)
        for node, receipt in zip(net.nodes, receipts, strict=True):
            wait_until(lambda node=node: not node.store.unacknowledged())
            stored = node.store.get(jobs[0].job_id)
            assert stored is not None
            assert stored.receipt == receipt
            assert node.store.earnings().total_cost == receipt.receipt.cost
        net.wait_idle()
    finally:
        net.close()


def test_many_jobs_at_once_and_in_any_order_of_tasks(net: Network) -> None:
    orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]]
    batches = [net.jobs(max_tokens=20 + i) for i in range(4)]
    for jobs, order in zip(batches, orders, strict=True):
        net.dispatch(jobs, order)
    for jobs in batches:
        net.prompt(jobs[0])
    for i, jobs in enumerate(batches):
        net.until(lambda jobs=jobs: net.finish(jobs[0]))
        expected = expected_tokens(PROMPT, net.num_layers, 20 + i)
        assert net.tokens(jobs[0]) == expected
        net.check(jobs, expected)
    net.wait_idle()


def test_a_dearer_tier_has_a_larger_share_of_each_stage(slow_net: Network) -> None:
    jobs = [slow_net.jobs(salt=bytes([tier]), max_tokens=500, tier=tier) for tier in (0, 1, 2)]
    for one in jobs:
        slow_net.dispatch(one)
    wait_until(lambda: all(len(node.engine.sequences) == 3 for node in slow_net.nodes))
    for node in slow_net.nodes:
        assert [node.engine.sequences[one[0].job_id].spec.weight for one in jobs] == [1.0, 2.5, 5.0]


def test_each_stage_shares_what_it_computes_within_a_payers_session_alone(slow_net: Network) -> None:
    jobs = slow_net.jobs(max_tokens=500)
    slow_net.dispatch(jobs)
    wait_until(lambda: all(node.engine.sequences for node in slow_net.nodes))
    for node, job in zip(slow_net.nodes, jobs, strict=True):
        assert node.engine.sequences[job.job_id].spec.cache_salt == job.request.session != b""


def test_end_of_sequence_stops_all_stages(net: Network) -> None:
    expected = expected_tokens(PROMPT, net.num_layers, 12)
    sampling = Sampling(temperature=1, seed=2**64 - 1)
    jobs = net.jobs(max_tokens=40, eos_token_ids=(expected[11],), options=GenerationOptions(sampling=sampling))
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: net.finish(jobs[0]))
    assert net.finish(jobs[0]) == wire.Finish(jobs[0].job_id, "stop", 12)
    net.check(jobs, expected, sampling)


def coarser(jobs: list[StageJob], wanted: wire.PromptFormat) -> list[StageJob]:
    last = len(jobs) - 1
    return [
        job.model_copy(
            update={
                "prompt_format_in": wanted if job.stage else "profile",
                "prompt_format_out": wanted if job.stage < last else "profile",
            }
        )
        for job in jobs
    ]


def noted(node: ToyNode) -> list[wire.Hidden]:
    """The hidden states that a node sends from now on."""
    sent: list[wire.Hidden] = []
    send = node.engine_thread._links.send

    def note(peer: Peer, frame: wire.Frame) -> None:
        if isinstance(frame, wire.Hidden):
            sent.append(frame)
        send(peer, frame)

    node.engine_thread._links.send = note  # type: ignore[method-assign]
    return sent


@pytest.mark.parametrize("wanted", ["float16", "int8"])
def test_a_prompt_may_travel_rounded_and_tokens_never_do(net: Network, wanted: wire.PromptFormat) -> None:
    sent = [noted(node) for node in net.nodes[:2]]
    jobs = coarser(net.jobs(max_tokens=40), wanted)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: net.finish(jobs[0]))
    expected = expected_tokens(PROMPT, net.num_layers, 40)
    assert net.tokens(jobs[0]) == expected
    net.check(jobs, expected)
    for frames in sent:
        assert {f.dtype for f in frames if f.first_position < len(PROMPT)} == {wanted}
        assert {f.dtype for f in frames if f.first_position >= len(PROMPT)} == {"float32"}


@pytest.mark.parametrize(
    ("allowed", "dtype", "position", "size"),
    [
        ("profile", "int8", 0, 8),
        ("profile", "float16", 0, 8),
        ("float16", "int8", 0, 8),
        ("int8", "float32", 0, 16),
        ("int8", "float16", 0, 8),
    ],
)
def test_a_format_that_the_job_does_not_name_ends_it(
    net: Network, allowed: wire.PromptFormat, dtype: wire.RowFormat, position: int, size: int
) -> None:
    jobs = coarser(net.jobs(), allowed)
    net.dispatch(jobs)
    net.until(lambda: net.of(wire.Ready, jobs[0]))
    neighbour = net.nodes[0]
    frame = wire.Hidden(jobs[0].job_id, position, 1, dtype, bytes(size))
    neighbour.engine_thread._call(lambda: neighbour.engine_thread._links.send(net.nodes[1].party.peer, frame))
    net.until(lambda: net.of(wire.Failed, jobs[0]))
    assert {f.code for _, f in net.of(wire.Failed, jobs[0])} == {"wrong_dtype"}  # type: ignore[union-attr]
    net.wait_idle()


def test_cancel_ends_all_stages_with_equal_counts(slow_net: Network) -> None:
    net = slow_net
    for wanted in (1, 7, 23, 24):  # with a prompt of 10, some of these end at a chunk's edge
        jobs = net.jobs(max_tokens=5000)
        net.dispatch(jobs)
        net.prompt(jobs[0])
        net.until(lambda jobs=jobs, wanted=wanted: len(net.tokens(jobs[0])) >= wanted)
        net.send(2, wire.Cancel(jobs[0].job_id))
        net.until(lambda jobs=jobs: net.finish(jobs[0]))
        finish = net.finish(jobs[0])
        assert finish is not None
        tokens = net.tokens(jobs[0])
        assert (finish.finish_reason, finish.num_output_tokens) == ("cancelled", len(tokens))
        net.check(jobs, tokens)
        net.wait_idle()


def test_cancel_before_the_first_token_costs_nothing(slow_net: Network) -> None:
    net = slow_net
    jobs = net.jobs()
    net.dispatch(jobs)
    net.until(lambda: net.of(wire.Ready, jobs[0]))
    net.send(2, wire.Cancel(jobs[0].job_id))
    net.until(lambda: net.finish(jobs[0]))
    assert net.finish(jobs[0]) == wire.Finish(jobs[0].job_id, "cancelled", 0)
    net.wait_idle()
    assert all(node.store.earnings().num_receipts == 0 for node in net.nodes)


def test_whom_a_neighbour_blames_is_not_passed_on(slow_net: Network) -> None:
    net = slow_net
    jobs = net.jobs(max_tokens=3000)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: len(net.tokens(jobs[0])) > 2)
    liar, victim, third = net.nodes[1], net.nodes[2].party, net.nodes[0].party
    word = wire.Failed(jobs[0].job_id, "peer_lost", "told so", third.address)
    liar.engine_thread._call(lambda: liar.engine_thread._links.send(victim.peer, word))
    net.until(lambda: victim.address in {who for who, _ in net.of(wire.Failed, jobs[0])})
    told = [f for who, f in net.of(wire.Failed, jobs[0]) if who == victim.address and isinstance(f, wire.Failed)]
    assert {failed.blamed for failed in told} == {liar.party.address}
    net.wait_idle()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_node_fails_the_job_everywhere_and_frees_all(slow_net: Network, lost: int) -> None:
    net = slow_net
    jobs = net.jobs(max_tokens=5000)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: len(net.tokens(jobs[0])) > 5)
    for entry in net.nodes[lost].engine_thread._jobs.values():
        entry.running._send_frame = lambda *_: None  # it dies without a word
    net.nodes[lost].stop()
    survivors = [node for stage, node in enumerate(net.nodes) if stage != lost]
    net.until(lambda: {who for who, _ in net.of(wire.Failed, jobs[0])} >= {n.party.address for n in survivors})
    wait_until(lambda: all(node.idle for node in survivors))
    address = net.nodes[lost].party.address
    told = [(who, f) for who, f in net.of(wire.Failed, jobs[0]) if isinstance(f, wire.Failed)]
    assert {failed.code for _, failed in told} == {"peer_lost"}
    # Who lost it blames it; who was told so before seeing it blames who told him.
    assert address in {failed.blamed for _, failed in told}
    assert all(failed.blamed not in (None, who) for who, failed in told)
    assert all(node.store.earnings().num_receipts == 0 for node in survivors)


def test_a_task_that_comes_twice_runs_once_and_undisturbed(slow_net: Network) -> None:
    net = slow_net
    jobs = net.jobs(max_tokens=60)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: net.tokens(jobs[0]))
    net.dispatch(jobs)
    net.until(lambda: net.finish(jobs[0]))
    net.check(jobs, expected_tokens(PROMPT, net.num_layers, 60))
    assert net.of(wire.Failed, jobs[0]) == []


def test_a_task_refused_is_told_to_its_gateway(net: Network) -> None:
    jobs = net.jobs()
    cheap = jobs[1].assignment.model_copy(update={"prompt_price": 1})
    signature = sign(cheap, DOMAIN, net.gateway.signer)
    changed = jobs[1].model_copy(update={"assignment": cheap, "assignment_signature": signature})
    net.dispatch([jobs[0], StageJob.model_validate(changed.model_dump()), jobs[2]])
    net.until(lambda: net.of(wire.Failed, jobs[0]))
    assert net.of(wire.Failed, jobs[0])[0][1].code == "price_too_low"  # type: ignore[union-attr]


@pytest.mark.parametrize("change", [{"shard": b"\1" * 32}, {"numeric_profile": 1}])
def test_a_task_for_other_weights_than_the_nodes_is_told_to_its_gateway(
    net: Network, change: dict[str, object]
) -> None:
    jobs = net.jobs()
    other = jobs[1].assignment.model_copy(update=change)
    signature = sign(other, DOMAIN, net.gateway.signer)
    changed = jobs[1].model_copy(update={"assignment": other, "assignment_signature": signature})
    net.dispatch([jobs[0], StageJob.model_validate(changed.model_dump()), jobs[2]])
    net.until(lambda: net.of(wire.Failed, jobs[0]))
    assert net.of(wire.Failed, jobs[0])[0][1].code == "not_served"  # type: ignore[union-attr]


def test_a_grammar_that_does_not_compile_is_told_to_the_gateway(net: Network) -> None:
    jobs = net.jobs(options=GenerationOptions(sampling=Sampling(grammar=Grammar(kind="regex", text="a"))))
    net.dispatch(jobs)
    net.until(lambda: net.of(wire.Failed, jobs[0]))
    (address, frame), *_ = net.of(wire.Failed, jobs[0])
    assert isinstance(frame, wire.Failed)
    assert (address, frame.code) == (jobs[-1].assignment.node, "invalid_sequence")
    assert "toys" in frame.message


def test_a_silent_gateway_ends_its_jobs(slow_net: Network) -> None:
    net = slow_net
    jobs = net.jobs(max_tokens=50_00)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: len(net.tokens(jobs[0])) > 5)
    net.links.close()
    net.wait_idle()


def hostile_frames(job: StageJob) -> list[wire.Frame]:
    j = job.job_id
    return [
        wire.Ready(j),
        wire.Prompt(j, 1, bytes(4)),
        wire.Hidden(j, 0, 1, "float32", bytes(16)),
        wire.Token(j, 0, 10, 1, "stop"),
        wire.Finish(j, "stop", 3),
        wire.Cancel(j),
        wire.Failed(j, "because", ""),
        wire.Receipt(j, "{}", bytes(65), b""),
        wire.ReceiptAck(j, bytes(65)),
        wire.Heartbeat(bytes(32), "x", 0, 1, 0, 1, 0.0),
    ]


def test_strangers_and_noise_change_nothing(slow_net: Network) -> None:
    """A registered node that is no part of the job sends every kind of frame and random bytes to all stages."""
    net = slow_net
    jobs = net.jobs(max_tokens=60)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    stranger = net.stranger_links()
    try:
        while not net.finish(jobs[0]):
            for node in net.nodes:
                for frame in hostile_frames(jobs[0]):
                    stranger.send(node.party.peer, frame)
                raw = stranger._link_to(node.party.peer).socket
                for parts in ([os.urandom(40)], [os.urandom(40), os.urandom(9)], [b"", b"", b""]):
                    raw.send_multipart(parts)
            known = len(net.tokens(jobs[0]))
            net.until(lambda known=known: len(net.tokens(jobs[0])) > known or net.finish(jobs[0]))
    finally:
        stranger.close()
    expected = expected_tokens(PROMPT, net.num_layers, 60)
    assert net.tokens(jobs[0]) == expected
    net.check(jobs, expected)
    for node in net.nodes:
        dropped = node.engine_thread.status().dropped
        assert dropped["foreign"] > 0
        assert dropped["malformed"] > 0


@pytest.mark.parametrize(
    ("stage", "role", "frame", "code"),
    [
        (0, "gateway", lambda j: wire.Prompt(j, 3, bytes(12)), "wrong_prompt"),
        (0, "upstream", lambda j: wire.Token(j, 7, 17, 1), "position_mismatch"),
        (1, "upstream", lambda j: wire.Hidden(j, 99, 1, "float32", bytes(16)), "position_mismatch"),
        (1, "upstream", lambda j: wire.Hidden(j, 0, 1, "float32", bytes(16)), "position_mismatch"),
        (1, "upstream", lambda j: wire.Hidden(j, 0, 1, "bfloat16", bytes(16)), "wrong_dtype"),
        (1, "upstream", lambda j: wire.Finish(j, "stop", 4000), "finish_mismatch"),
        (2, "upstream", lambda j: wire.Failed(j, "engine_error", "told so"), "engine_error"),
        (2, "upstream", lambda j: wire.Failed(j, "of_tomorrow", "told so"), "unknown"),
    ],
)
def test_a_neighbour_that_breaks_the_protocol_ends_the_job_and_nothing_else(
    slow_net: Network, stage: int, role: str, frame: Callable[[bytes], wire.Frame], code: str
) -> None:
    net = slow_net
    jobs, other = net.jobs(max_tokens=3000), net.jobs(max_tokens=30)
    for batch in (jobs, other):
        net.dispatch(batch)
        net.prompt(batch[0])
    net.until(lambda: len(net.tokens(jobs[0])) > 2)
    victim = net.nodes[stage].party.peer
    if role == "gateway":
        net.links.send(victim, frame(jobs[0].job_id))
    else:
        neighbour = net.nodes[stage - 1]
        neighbour.engine_thread._call(lambda: neighbour.engine_thread._links.send(victim, frame(jobs[0].job_id)))
    net.until(lambda: net.of(wire.Failed, jobs[0]))
    told = [(who, f) for who, f in net.of(wire.Failed, jobs[0]) if isinstance(f, wire.Failed)]
    assert code in {failed.code for _, failed in told}
    # Who was told by a neighbour blames it; nobody else's word is passed on.
    blamed = None if code not in ("engine_error", "unknown") else net.nodes[stage - 1].party.address
    assert {failed.blamed for who, failed in told if who == victim.address} == {blamed}
    assert all(failed.blamed not in (None, who) for who, failed in told if who != victim.address)
    net.until(lambda: net.finish(other[0]))
    net.check(other, expected_tokens(PROMPT, net.num_layers, 30))
    net.wait_idle()


def test_a_prompt_that_is_said_again_late_changes_nothing(slow_net: Network) -> None:
    """A gateway says it again at a `ready`, and one may have waited in a link that was down meanwhile."""
    net = slow_net
    jobs = net.jobs(max_tokens=40)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: len(net.tokens(jobs[0])) > 4)
    net.prompt(jobs[0])
    net.until(lambda: net.finish(jobs[0]) or net.of(wire.Failed, jobs[0]))
    net.check(jobs, expected_tokens(PROMPT, net.num_layers, 40))


def test_a_job_over_capacity_is_refused_and_the_others_go_on(slow_net: Network) -> None:
    net = slow_net
    batches = [net.jobs(max_tokens=30, salt=bytes([i])) for i in range(5)]
    for jobs in batches:
        net.dispatch(jobs)
        net.until(lambda jobs=jobs: net.of(wire.Ready, jobs[0]) or net.of(wire.Failed, jobs[0]))
    refused = [jobs for jobs in batches if net.of(wire.Failed, jobs[0])]
    assert [f.code for _, f in net.of(wire.Failed, refused[0][0])][:1] == ["busy"]  # type: ignore[union-attr]
    assert len(refused) == 1
    for jobs in batches:
        if jobs not in refused:
            net.prompt(jobs[0])
            net.check(jobs, expected_tokens(PROMPT, net.num_layers, 30))


def test_receipts_are_sent_again_until_acknowledged_also_after_a_restart(net: Network) -> None:
    jobs = net.jobs(max_tokens=3)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    node = net.nodes[1]
    net.until(lambda: len([1 for who, _ in net.of(wire.Receipt, jobs[0]) if who == node.party.address]) >= 2)
    assert len(node.store.unacknowledged()) == 1
    node.engine_thread.beat_to([net.gateway.peer])
    net.frames.clear()
    node.service.send_waiting_receipts()
    net.check(jobs, expected_tokens(PROMPT, net.num_layers, 3))
    wait_until(lambda: not node.store.unacknowledged())


def test_only_the_gateways_own_word_ends_the_sending_and_it_outlives_a_restart(net: Network, tmp_path: Path) -> None:
    jobs = net.jobs(max_tokens=3)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    node, sent = net.nodes[1], lambda: [f for who, f in net.of(wire.Receipt, jobs[1]) if who == node.party.address]
    net.until(sent)
    receipt = SignedReceipt.from_frame(sent()[0])  # type: ignore[arg-type]
    other = receipt.model_copy(update={"receipt": receipt.receipt.model_copy(update={"cost": 1})})
    for forged in (
        net.ack(jobs[1], receipt, net.stranger),
        net.ack(jobs[1], other, net.gateway),
        wire.ReceiptAck(jobs[1].job_id, bytes(65)),
    ):
        net.send(1, forged)
        seen = len(sent())
        net.until(lambda seen=seen: len(sent()) > seen)
        assert node.store.unacknowledged()

    ack = net.ack(jobs[1], receipt, net.gateway)
    net.send(1, ack)
    wait_until(lambda: not node.store.unacknowledged())
    wait_until(lambda: not node.engine_thread.status().num_receipts_waiting)
    node.stop()
    again = NodeStore(tmp_path / f"{node.party.address}.db")
    stored = again.get(jobs[1].job_id)
    again.close()
    assert stored is not None
    assert (stored.job.job_id, stored.receipt, stored.acceptance) == (jobs[1].job_id, receipt, ack.acceptance)
    assert (stored.job.assignment, stored.job.request) == (jobs[1].assignment, jobs[1].request)


def test_a_new_signer_of_the_gateway_may_accept_what_the_old_one_assigned(net: Network) -> None:
    jobs = net.jobs(max_tokens=3)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: len(net.of(wire.Receipt, jobs[0])) >= 3)
    net.gateway.signer = new_account()
    net.registry.gateways[net.gateway.signer.address] = net.gateway.address
    net.receipts(jobs)
    wait_until(lambda: not any(node.store.unacknowledged() for node in net.nodes))


def test_a_node_beats_as_often_as_its_gateway_asked(net: Network) -> None:
    often, seldom, _ = net.nodes
    seldom.engine_thread.beat_every(3600)
    for node in (often, seldom):
        node.engine_thread.beat_to([net.gateway.peer])

    def num_beats(node: ToyNode) -> int:
        return sum(who == node.party.address for who, frame in net.frames if isinstance(frame, wire.Heartbeat))

    net.until(lambda: num_beats(often) >= 4)
    net.until(lambda: num_beats(seldom))
    assert num_beats(seldom) == 1
    seldom.engine_thread.beat_every(0.05)
    net.until(lambda: num_beats(seldom) >= 4)


def test_heartbeats_tell_what_is_served_and_how_fast(net: Network) -> None:
    node = net.nodes[1]
    node.engine_thread.beat_to([net.gateway.peer])
    jobs = net.jobs(max_tokens=30)
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: net.finish(jobs[0]))

    def latest() -> wire.Heartbeat | None:
        beats = [f for _, f in net.frames if isinstance(f, wire.Heartbeat)]
        return beats[-1] if beats else None

    net.until(lambda: (beat := latest()) is not None and beat.seconds_per_token_layer > 0 and beat.jobs_running == 0)
    beat = latest()
    assert beat is not None
    assert (beat.first_layer, beat.end_layer, beat.capacity, beat.draining) == (2, 4, 4, False)
    node.engine_thread.drain()
    net.until(lambda: (beat := latest()) is not None and beat.draining)
    late = net.jobs(max_tokens=3)
    net.dispatch(late)
    net.until(lambda: net.of(wire.Failed, late[0]))


def test_a_broken_engine_fails_its_jobs_and_the_node_lives(net: Network) -> None:
    node = net.nodes[1]
    original = node.engine.step

    def broken() -> list[object]:
        raise RuntimeError("out of memory")

    node.engine.step = broken  # type: ignore[method-assign, assignment]
    jobs = net.jobs()
    net.dispatch(jobs)
    net.prompt(jobs[0])
    net.until(lambda: net.of(wire.Failed, jobs[0]))
    net.wait_idle()
    node.engine.step = original  # type: ignore[method-assign]
    again = net.jobs(max_tokens=5)
    net.dispatch(again)
    net.prompt(again[0])
    net.check(again, expected_tokens(PROMPT, net.num_layers, 5))


def test_an_engine_whose_next_step_is_far_off_holds_no_heartbeat_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyEngine, "step_in_s", 30.0)
    net = Network(tmp_path, 1)
    try:
        [node] = net.nodes
        net.dispatch(net.jobs())
        wait_until(lambda: node.engine_thread.status().num_jobs == 1)
        node.engine_thread.beat_to([net.gateway.peer])
        net.until(lambda: sum(isinstance(frame, wire.Heartbeat) for _, frame in net.frames) >= 3, timeout_s=8)
    finally:
        net.close()
