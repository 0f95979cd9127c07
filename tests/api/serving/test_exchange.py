"""A gateway exchanges a stage's node in mid-stream: the payer sees one answer, and its papers hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from declai.api.errors import CapTooLow, ClientGone, NoCapacity
from declai.api.serving import generator
from declai.api.serving.attempt import Attempt
from declai.protocol.jobs import Envelope
from tests.support.echo_network import LAYERS, MODEL, EchoNode, Network, register_node
from tests.support.waiting import wait_until

PROMPT = "one two three four five six seven eight nine"


@pytest.fixture
def add_spare(idle: Network, tmp_path: Path) -> Iterator[Callable[[int], EchoNode]]:
    """Starts a node for a stage's layers, which the scheduler finds too slow to place a job there."""
    spares: list[EchoNode] = []

    def add(stage: int) -> EchoNode:
        arguments = (tmp_path, idle.chain, idle.manifest, idle.manifest_cid, idle.tokenizer, LAYERS[stage])
        spare = EchoNode(*arguments, seconds_per_token_layer=1.0)
        register_node(idle.chain, idle.treasury, spare)
        spare.start(idle.url, idle.operator.address)
        spares.append(spare)
        live = idle.gateway.directory.live
        wait_until(lambda: spare.address in {node.address for node in live()}, "the spare node's heartbeat")
        return spare

    yield add
    for spare in spares:
        spare.stop()
        idle.gateway.directory.lost(spare.address)


class Attempts:
    """The attempts that a gateway makes, and the event loop that they run on."""

    def __init__(self) -> None:
        self.made: list[Attempt] = []
        self.loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, *arguments: Any) -> Attempt:
        self.loop = asyncio.get_running_loop()
        self.made.append(Attempt(*arguments))
        return self.made[-1]


class Stream:
    """A request in mid-stream, and the attempt that serves it."""

    def __init__(self, client: openai.OpenAI, network: Network, attempts: Attempts) -> None:
        for node in network.nodes:
            node.engine.delay_s = 0.02
        self._network, self._attempts = network, attempts
        self._stream = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=60, stream=True)
        self.request = self._stream.response.headers["x-declai-request"]
        self.text = "".join(next(iter(self._stream)).choices[0].text for _ in range(4))
        (self.attempt,) = attempts.made

    def exchange(self, stage: int, spare: EchoNode, **changes: int) -> None:
        """By the spare node's offer, in which something may be changed."""
        directory, model = self._network.gateway.directory, self.attempt._jobs[0].request.model
        cid = self._network.manifest_cid
        (offer,) = wait_until(lambda: [one for one in directory.offers(model, cid) if one.address == spare.address])
        assert self._attempts.loop is not None
        done = self.attempt.exchange(stage, replace(offer, **changes))
        asyncio.run_coroutine_threadsafe(done, self._attempts.loop).result(10)

    def num_running(self, *nodes: EchoNode) -> list[int]:
        """Jobs that the gateway itself counts on each node."""
        return [self._network.gateway.directory._num_running[node.address] for node in nodes]

    def finish(self) -> None:
        self.text += "".join(chunk.choices[0].text for chunk in self._stream)
        assert self.text.strip() == PROMPT


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    made = Attempts()
    monkeypatch.setattr(generator, "Attempt", made)
    return made


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_stage_is_exchanged_in_mid_stream(
    client: openai.OpenAI,
    http: httpx.Client,
    idle: Network,
    add_spare: Callable[[int], EchoNode],
    attempts: Attempts,
    stage: int,
) -> None:
    spare = add_spare(stage)
    stream = Stream(client, idle, attempts)
    old = idle.nodes[stage]
    assert stream.num_running(old, spare) == [1, 0]
    old.engine.silent = True
    stream.exchange(stage, spare)
    assert stream.num_running(old, spare) == [0, 1]
    stream.finish()
    wait_until(lambda: not any(node.engine.sequences for node in [*idle.nodes, spare]), "the stages' end")
    receipts = http.get(f"/v1/receipts/{stream.request}").json()
    nodes = [part["assignment"]["node"] for part in receipts["stages"]]
    assert nodes == [spare.address if k == stage else node.address for k, node in enumerate(idle.nodes)]
    assert [part["assignment"]["attempt"] for part in receipts["stages"]] == [int(k == stage) for k in range(3)]
    wait_until(lambda: stream.num_running(*idle.nodes, spare) == [0, 0, 0, 0], "the end of the gateway's count")


def test_an_exchange_without_a_task_for_the_new_node_changes_nothing(
    client: openai.OpenAI, http: httpx.Client, idle: Network, add_spare: Callable[[int], EchoNode], attempts: Attempts
) -> None:
    async def refuse(tasks: object) -> None:
        raise NoCapacity("the broker is gone")

    spare = add_spare(1)
    stream = Stream(client, idle, attempts)
    stream.attempt._context = replace(stream.attempt._context, dispatch=refuse)
    with pytest.raises(NoCapacity):
        stream.exchange(1, spare)
    check_unchanged(stream, http, idle, spare)


def test_no_node_comes_that_makes_a_request_dearer_than_signed(
    client: openai.OpenAI, http: httpx.Client, idle: Network, add_spare: Callable[[int], EchoNode], attempts: Attempts
) -> None:
    spare = add_spare(1)
    stream = Stream(client, idle, attempts)
    with pytest.raises(CapTooLow):
        stream.exchange(1, spare, output_price=10**30)
    check_unchanged(stream, http, idle, spare)


def test_a_job_that_ends_while_its_node_is_exchanged_leaves_no_count_and_no_work(
    client: openai.OpenAI, idle: Network, add_spare: Callable[[int], EchoNode], attempts: Attempts
) -> None:
    spare = add_spare(1)
    stream = Stream(client, idle, attempts)
    dispatch = stream.attempt._context.dispatch

    async def late(tasks: Sequence[tuple[str, Envelope]]) -> None:
        await asyncio.to_thread(stream.finish)
        await asyncio.to_thread(wait_until, lambda: stream.attempt._is_over, "the end")
        await dispatch(tasks)

    stream.attempt._context = replace(stream.attempt._context, dispatch=late)
    with pytest.raises(ClientGone):
        stream.exchange(1, spare)
    wait_until(lambda: stream.num_running(*idle.nodes, spare) == [0, 0, 0, 0], "the end of the gateway's count")
    wait_until(
        lambda: not spare.engine_thread.status().num_jobs and spare.engine_thread.status().ended, "the new node's end"
    )


def check_unchanged(stream: Stream, http: httpx.Client, network: Network, spare: EchoNode) -> None:
    assert stream.num_running(*network.nodes, spare) == [1, 1, 1, 0]
    stream.finish()
    receipts = wait_until(lambda: http.get(f"/v1/receipts/{stream.request}").json())
    assert [part["assignment"]["node"] for part in receipts["stages"]] == [node.address for node in network.nodes]
    assert not spare.engine.num_steps
