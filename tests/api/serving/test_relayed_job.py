"""Whole requests through nodes that nobody can connect to: a real gateway, chain and broker; the middle node or all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import pytest
import zmq

from declai.api.nodes.directory import NodeDirectory
from declai.devnet.processes import ChainKind, start_chain, start_redis
from declai.protocol.peers import RELAY
from tests.support.cable import Cable
from tests.support.echo_network import LAYERS, MODEL, EchoNode, Network, register_node, running_network
from tests.support.gateway_requests import check_acceptance, check_receipts, reserved
from tests.support.waiting import wait_until

TEXT = "the quick brown fox jumps over the lazy dog"


@pytest.fixture(scope="module", params=[(1,), (0, 1, 2)], ids=["middle", "all"])
def relayed_network(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, chain_kind: ChainKind
) -> Iterator[Network]:
    directory = tmp_path_factory.mktemp("relayed")
    with (
        start_chain(directory / "logs", chain_kind) as rpc_url,
        start_redis(directory / "redis") as broker,
        running_network(directory, rpc_url, broker, relayed=request.param) as running,
    ):
        yield running


@pytest.fixture
def client(relayed_network: Network) -> Iterator[openai.OpenAI]:
    relayed_network.wait_for_nodes()
    key = relayed_network.login(relayed_network.open_session())
    with openai.OpenAI(base_url=f"{relayed_network.url}/v1", api_key=key, max_retries=0, timeout=30) as opened:
        yield opened
    for node in relayed_network.nodes:
        node.engine.heal()


def relayed_of(network: Network) -> list[EchoNode]:
    return [node for node in network.nodes if node.links.endpoint == RELAY]


def test_tokens_and_receipts_are_those_of_any_other_job(client: openai.OpenAI, relayed_network: Network) -> None:
    network = relayed_network
    http = client.completions.with_raw_response
    for _ in range(3):
        raw = http.create(model=MODEL, prompt=TEXT, max_tokens=100, extra_body={"return_token_ids": True})
        answer = raw.parse()
        assert answer.choices[0].token_ids == [*network.tokenizer.encode(TEXT).ids, 2]  # type: ignore[attr-defined]
        request = raw.headers["x-declai-request"]
        url, headers = f"{network.url}/v1/receipts/{request}", {"Authorization": f"Bearer {client.api_key}"}
        receipts = httpx.get(url, headers=headers).json()
        assert answer.usage is not None
        usage = answer.usage.model_dump()
        check_receipts(network, receipts, usage)
        for node in network.nodes:
            wait_until(lambda node=node: not node.store.unacknowledged(since=0), "the word")  # type: ignore[misc]
            check_acceptance(network, node, request)
    assert reserved(network) == 0
    for node in relayed_of(network):
        assert not any(node.links.num_unsealed.values())
        assert not node.links._bound.get_string(zmq.LAST_ENDPOINT).strip("\0")  # it listens nowhere


def test_a_client_that_leaves_ends_the_job(client: openai.OpenAI, relayed_network: Network) -> None:
    for node in relayed_network.nodes:
        node.engine.delay_s = 0.02
    stream = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=100, stream=True)
    next(iter(stream))
    stream.close()
    wait_until(lambda: not any(node.engine.sequences for node in relayed_network.nodes), "the end on every node")


def test_a_node_that_falls_silent_ends_the_job_clearly(client: openai.OpenAI, relayed_network: Network) -> None:
    relayed_network.nodes[1].engine.silent = True
    with pytest.raises(openai.APIStatusError) as refused:
        client.completions.create(model=MODEL, prompt="hello", max_tokens=20)
    assert refused.value.status_code >= 500
    wait_until(lambda: not any(node.engine.sequences for node in relayed_network.nodes), "the end on every node")


def test_bytes_are_counted(client: openai.OpenAI, relayed_network: Network) -> None:
    def relayed_bytes() -> float:
        text = httpx.get(f"{relayed_network.url}/metrics").text
        values = dict(line.split() for line in text.splitlines() if line.startswith("declai_relay_"))
        assert set(values) >= {"declai_relay_refused", "declai_relay_overflows", "declai_relay_waiting_bytes"}
        return float(values["declai_relay_bytes"])

    before = relayed_bytes()
    client.completions.create(model=MODEL, prompt=TEXT, max_tokens=100)
    assert relayed_bytes() > before + 16 * len(TEXT.split())


def test_a_reachable_node_is_preferred(client: openai.OpenAI, relayed_network: Network, tmp_path: Path) -> None:
    network = relayed_network
    spare = EchoNode(
        tmp_path,
        network.chain,
        network.manifest,
        network.manifest_cid,
        network.tokenizer,
        LAYERS[1],
    )
    register_node(network.chain, network.treasury, spare)
    spare.start(network.url, network.operator.address)
    try:
        wait_until(lambda: len(network.gateway.directory.live()) == 4, "the spare node's heartbeat")
        body = {"model": MODEL, "prompt": "hello", "max_tokens": 30}
        headers = {"Authorization": f"Bearer {client.api_key}"}
        estimate = httpx.post(f"{network.url}/v1/estimate", json=body, headers=headers).json()
        assert estimate["stages"][1]["node"] == spare.address
    finally:
        spare.stop()
        network.gateway.directory.lost(spare.address)


def test_a_gateway_that_relays_for_nobody_does_not_know_such_nodes(relayed_network: Network) -> None:
    gateway = relayed_network.gateway
    for through in (None, relayed_network.operator.address):
        directory = NodeDirectory(gateway.index, gateway.chain, relay_through=through)
        directory.refresh()
        for node in relayed_network.nodes:
            knows = directory.worker(node.address) is not None
            assert knows == (through is not None or node not in relayed_of(relayed_network))
            assert directory.admits(node.keys.public) == knows


@pytest.fixture
def cables() -> Iterator[list[Cable]]:
    laid: list[Cable] = []
    yield laid
    for cable in laid:
        cable.close()


def test_a_cut_link_to_the_gateway_costs_at_most_the_jobs_that_ran(
    tmp_path: Path, chain_kind: ChainKind, cables: list[Cable]
) -> None:
    def lay(endpoint: str) -> str:
        cables.append(Cable(endpoint))
        return cables[-1].endpoint

    with (
        start_chain(tmp_path / "logs", chain_kind) as rpc_url,
        start_redis(tmp_path / "redis") as broker,
        running_network(tmp_path, rpc_url, broker, relayed=(1,), way_to=lay) as network,
    ):
        key = network.login(network.open_session())
        with openai.OpenAI(base_url=f"{network.url}/v1", api_key=key, max_retries=0, timeout=30) as client:
            for node in network.nodes:
                node.engine.delay_s = 0.02
            stream = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=100, stream=True)
            text = next(iter(stream)).choices[0].text
            cables[0].cut()
            with suppress(
                openai.APIError
            ):  # a token is lost on the way to the gateway itself: the job ends, and says so
                text += "".join(chunk.choices[0].text for chunk in stream)
                assert text.strip() == TEXT
            wait_until(lambda: not any(node.engine.sequences for node in network.nodes), "the end on every node")
            for node in network.nodes:
                node.engine.heal()
            network.wait_for_nodes()
            again = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=100)
            assert again.choices[0].text.strip() == TEXT
