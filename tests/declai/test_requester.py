"""A requester's way, command by command: wallet, credits, session, chat, receipts, settlement, verification."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from declai import Client
from declai.chain.pricing import format_credits, parse_credits
from declai.client.aio import chain_of
from declai.devnet.processes import free_port
from declai.errors import ApiError, SessionError
from tests.support.devnet import ROOT, Running


@pytest.fixture(autouse=True)
def home(devnet: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECLAI_HOME", str(devnet.cli.home))


def test_the_whole_way_from_session_to_verified_settlement(devnet: Running) -> None:
    cli = devnet.cli
    cli.json("gateway", "settle")  # what others left on the wallet's sessions
    before = cli.json("credits", "balance")
    session = cli.json("session", "open", "--budget", "2")["session"]
    answer = cli.json("chat", "What is a list?", "--max-tokens", "20", "--temperature", "0")
    assert answer["text"]
    assert answer["usage"]["completion_tokens"] == 20
    shown = cli.json("receipt", "show", answer["request"])
    assert [stage["stage"] for stage in shown["stages"]] == [0, 1, 2]
    cost = int(shown["cost"])
    assert cost == sum(int(stage["receipt"]["cost"]) for stage in shown["stages"]) + int(shown["fee"])
    assert format_credits(cost) == answer["usage"]["cost_credits"]

    assert "none of" in cli.fails("receipt", "verify", answer["request"])
    batches = cli.json("gateway", "settle")
    assert batches
    assert batches[0]["gas_used"] > 0
    verdict = cli.json("receipt", "verify", answer["request"])
    assert verdict["ok"]
    assert not verdict["problems"]
    assert int(verdict["cost"]) == cost
    assert sum(map(int, verdict["earnings"].values())) + int(verdict["fee"]) == cost

    chain = chain_of(devnet.network)
    assert chain.ledger.session(bytes.fromhex(session[2:])).settled == cost
    after = cli.json("credits", "balance")
    locked = int(before["wallet_units"]) + int(before["ledger_units"]) + int(before["sessions_units"])
    assert int(after["wallet_units"]) + int(after["ledger_units"]) + int(after["sessions_units"]) == locked - cost
    listed = {row["session"]: row for row in cli.json("session", "list")}
    assert listed[session]["settled_credits"] == format_credits(cost)
    assert cli.json("gateway", "settle") == []


def test_earnings_reach_the_nodes_to_the_unit(devnet: Running) -> None:
    chain = chain_of(devnet.network)
    nodes = [node.address for node in devnet.network.nodes]
    devnet.cli.json("gateway", "settle")
    before = [chain.ledger.balance_of(node) for node in nodes]
    with Client(devnet.network) as client:
        client.open_session(parse_credits("1"))
        answers = [client.chat("What is a tuple?", max_tokens=5, temperature=0) for _ in range(3)]
        receipts = [client.receipts(answer.request) for answer in answers]
    devnet.cli.json("gateway", "settle")
    for number, node in enumerate(nodes):
        earned = sum(int(r["stages"][number]["receipt"]["cost"]) for r in receipts)
        assert chain.ledger.balance_of(node) - before[number] == earned


def test_a_session_that_is_spent_refuses_before_anything_is_sent(devnet: Running) -> None:
    with Client(devnet.network) as client:
        client.open_session(10**12)
        with pytest.raises(SessionError, match="top it up"):
            client.chat("What is a list?", max_tokens=50)
    devnet.cli.ok("session", "close")


def test_acknowledgements_follow_answers_and_refusals_cost_nothing(devnet: Running) -> None:
    with Client(devnet.network) as client:
        session = client.open_session(parse_credits("1"))
        client.chat("What is a set?", max_tokens=4, temperature=0)
        with pytest.raises(ApiError) as caught:
            client.chat("What is a set?", max_tokens=4, temperature=0, modalities=["audio"])
        assert caught.value.code == "unsupported_parameter"
        answer = client.chat("What is a set?", max_tokens=4, temperature=0)
        message = client.receipts(answer.request)["message"]
        assert message["acked_below"] == message["nonce"]
        spent = next(s.spent_units for s in client.sessions() if s.id == session.id)
        assert spent == int(message["spent"]) + parse_credits(answer.usage.cost_credits)


def test_a_replayed_request_is_refused(devnet: Running) -> None:
    with Client(devnet.network) as client:
        client.open_session(parse_credits("1"))
        body = {"model": "declai-demo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        signed = client._run(client._client._sign(body))
        url = f"{devnet.network.gateway.url}/v1/chat/completions"
        headers = {"Authorization": signed.header}
        assert httpx.post(url, json=body, headers=headers, timeout=60).status_code == 200
        again = httpx.post(url, json=body, headers=headers, timeout=60)
        assert again.status_code == 409
        assert again.json()["error"]["code"] in ("nonce_replayed", "acknowledgement_mismatch")
        other = httpx.post(url, json=body | {"max_tokens": 3}, headers=headers, timeout=60)
        assert other.json()["error"]["code"] == "invalid_signature"


def test_the_proxy_signs_for_programs_that_know_no_wallets(devnet: Running) -> None:
    devnet.cli.ok("session", "open", "--budget", "1")
    port = free_port()
    command = [sys.executable, "-m", "declai", "session", "proxy", "--port", str(port)]
    proxy = subprocess.Popen(command, env=devnet.cli.env, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/models").raise_for_status()
                break
            except httpx.HTTPError:
                assert proxy.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
            messages = [{"role": "user", "content": "What is a list?"}]
            whole = client.chat.completions.create(model="declai-demo", messages=messages, max_tokens=12, temperature=0)
            chunks = list(
                client.chat.completions.create(
                    model="declai-demo", messages=messages, max_tokens=12, temperature=0, stream=True
                )
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            assert text == whole.choices[0].message.content
            several_choices(client, devnet)
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model="nothing", messages=messages)
    finally:
        proxy.terminate()
        proxy.wait(20)


def several_choices(client: openai.OpenAI, devnet: Running) -> None:
    """The proxy signs a request for each choice, and makes one answer of theirs."""
    options: dict[str, Any] = {"model": "declai-demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
    raw = client.chat.completions.with_raw_response.create(**options, n=3, seed=5)
    whole = raw.parse()
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    alone = [client.chat.completions.create(**options, seed=5 + choice) for choice in range(3)]
    assert texts == [one.choices[0].message.content for one in alone]
    chunks = list(
        client.chat.completions.create(**options, n=3, seed=5, stream=True, stream_options={"include_usage": True})
    )
    for index in range(3):
        own = [chunk.choices[0] for chunk in chunks if chunk.choices and chunk.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in own) == texts[index]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    costs = [
        httpx.get(f"{devnet.network.gateway.url}/v1/receipts/{request}").json()["cost"]
        for request in raw.headers["x-declai-requests"].split(",")
    ]
    assert len(costs) == 3
    assert format_credits(sum(map(int, costs))) == whole.usage.cost_credits  # type: ignore[attr-defined]
    with pytest.raises(openai.BadRequestError, match="less than or equal to 8"):
        client.chat.completions.create(**options, n=9)


def test_the_client_has_one_choice(devnet: Running) -> None:
    with Client(devnet.network) as client, pytest.raises(ApiError, match="several times"):
        client.chat("hi", n=2)


def test_a_wallets_login_gives_a_key_for_any_client(devnet: Running) -> None:
    login = devnet.cli.json("session", "login", "--budget", "1")
    with openai.OpenAI(base_url=login["base_url"], api_key=login["api_key"], max_retries=0) as client:
        answer = client.completions.create(model="declai-demo", prompt="A list", max_tokens=3)
        assert answer.usage is not None
        assert answer.usage.completion_tokens <= 3


def test_a_session_is_closed_and_asked_for_again(devnet: Running) -> None:
    cli = devnet.cli
    for session in cli.json("session", "list"):
        if session["status"] == "open":
            cli.ok("session", "close", "--session", session["session"])
    newest = cli.json("session", "open", "--budget", "1")["session"]
    first = cli.json("session", "close")
    again = cli.json("session", "close")
    assert first["session"] == again["session"] == newest
    assert again["rest_available_at"] == first["rest_available_at"]


def test_a_mistyped_address_is_wrong_usage(devnet: Running) -> None:
    assert "not an address" in devnet.cli.fails("credits", "send", "0x12", "1", code=2)


def test_market_status_and_models(devnet: Running) -> None:
    cli = devnet.cli
    offers = cli.json("market")
    assert sorted(tuple(offer["layers"]) for offer in offers) == [(0, 2), (2, 4), (4, 6)]
    assert cli.json("gateway", "status")["ready"]
    assert [node["alive"] for node in cli.json("devnet", "status")["nodes"]] == [True, True, True]
    assert cli.json("model", "list")[0]["name"] == "declai-demo"
    assert cli.json("model", "show", "declai-demo")["layers"] == 6
    pulled = cli.json("model", "pull", "declai-demo", "--layers", "2-3")
    assert len(pulled["files"]) == 2
    cli.json("model", "pull", "declai-demo")
    assert cli.json("model", "verify", "declai-demo")["ok"]
    node = cli.json("node", "status", "--config", str(cli.home / "devnet" / "node-0.toml"))
    assert node


def test_a_second_devnet_in_the_same_folder_is_refused(devnet: Running) -> None:
    assert "runs in" in devnet.cli.fails("devnet", "up")


def test_a_network_file_is_private(devnet: Running) -> None:
    path = devnet.cli.home / "devnet" / "devnet.json"
    assert path.stat().st_mode & 0o077 == 0
    for config in Path(path.parent).glob("*.toml"):
        assert config.stat().st_mode & 0o077 == 0
    fields = json.loads(path.read_text())
    assert {"chain", "contracts", "gateway", "redis", "model", "wallets", "nodes", "api_key"} <= fields.keys()
