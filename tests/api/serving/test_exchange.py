"""A gateway exchanges a stage's node in mid-stream: the payer sees one answer, and its papers hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from declai.api.serving import generator
from declai.api.serving.attempt import Attempt
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


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_stage_is_exchanged_in_mid_stream(
    client: openai.OpenAI,
    http: httpx.Client,
    idle: Network,
    add_spare: Callable[[int], EchoNode],
    monkeypatch: pytest.MonkeyPatch,
    stage: int,
) -> None:
    spare, attempts, directory = add_spare(stage), Attempts(), idle.gateway.directory
    monkeypatch.setattr(generator, "Attempt", attempts)
    for node in idle.nodes:
        node.engine.delay_s = 0.02
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 60}
    stream = client.completions.create(**body, stream=True)  # type: ignore[call-overload]
    request = stream.response.headers["x-declai-request"]
    text = "".join(next(iter(stream)).choices[0].text for _ in range(4))
    idle.nodes[stage].engine.silent = True
    (attempt,) = attempts.made
    model = attempt._jobs[0].request.model
    (offer,) = wait_until(
        lambda: [offer for offer in directory.offers(model, idle.manifest_cid) if offer.address == spare.address]
    )
    assert attempts.loop is not None
    asyncio.run_coroutine_threadsafe(attempt.exchange(stage, offer), attempts.loop).result(10)
    text += "".join(chunk.choices[0].text for chunk in stream)
    assert text.strip() == PROMPT
    wait_until(lambda: not any(node.engine.sequences for node in [*idle.nodes, spare]), "the stages' end")
    receipts = http.get(f"/v1/receipts/{request}").json()
    nodes = [part["assignment"]["node"] for part in receipts["stages"]]
    assert nodes == [spare.address if k == stage else node.address for k, node in enumerate(idle.nodes)]
    assert [part["assignment"]["attempt"] for part in receipts["stages"]] == [int(k == stage) for k in range(3)]
