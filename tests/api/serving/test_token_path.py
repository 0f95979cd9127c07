"""A token is with its reader as the gateway takes its frame; what nodes send beyond that spoils their own job only."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from declai.api.nodes.hub import LinkHub
from declai.api.serving.attempt import Attempt
from declai.api.serving.running import Piece, Running
from declai.protocol.peers import Peer
from declai.protocol.wire import Frame, Prompt, Ready, Token
from tests.support.echo_network import MODEL, Network
from tests.support.gateway_requests import ended, error_of, reserved
from tests.support.waiting import wait_until

TEXT = "the quick brown fox jumps over the lazy dog"
BODY = {"model": MODEL, "prompt": TEXT, "max_tokens": 60}
Take = Callable[[LinkHub, bytes, Frame, bytes], None]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Take, LinkHub, bytes, Frame, bytes], None]], None]:
    """Puts a function before `LinkHub._take`, which gets the original first."""
    take = LinkHub._take

    def replace_by(watcher: Callable[[Take, LinkHub, bytes, Frame, bytes], None]) -> None:
        monkeypatch.setattr(LinkHub, "_take", lambda *arguments: watcher(take, *arguments))

    return replace_by


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many pieces with tokens wait or waited for each request's reader."""
    counted: dict[str, int] = {}
    put = Running.put

    def count(running: Running, item: Any) -> None:
        counted[running.request] = counted.get(running.request, 0) + (isinstance(item, Piece) and bool(item.tokens))
        put(running, item)

    monkeypatch.setattr(Running, "put", count)
    return counted


def test_a_token_is_with_its_reader_once_its_frame_is_taken(
    http: httpx.Client, watch: Any, pieces: dict[str, int]
) -> None:
    after: list[int] = []

    def look(take: Take, hub: LinkHub, sender: bytes, frame: Frame, connection: bytes) -> None:
        take(hub, sender, frame, connection)
        if isinstance(frame, Token):
            after.append(sum(pieces.values()))

    watch(look)
    answer = http.post("/v1/completions", json=BODY).json()
    assert after == list(range(1, answer["usage"]["completion_tokens"] + 1))


def test_who_floods_the_gateway_with_tokens_spoils_its_own_job_only(
    http: httpx.Client, idle: Network, watch: Any, pieces: dict[str, int]
) -> None:
    flooded: set[bytes] = set()

    def flood(take: Take, hub: LinkHub, sender: bytes, frame: Frame, connection: bytes) -> None:
        take(hub, sender, frame, connection)
        if isinstance(frame, Token) and (not flooded or frame.job in flooded):
            flooded.add(frame.job)
            for more in range(1, 2000):
                take(hub, sender, replace(frame, index=frame.index + more, position=frame.position + more), connection)

    watch(flood)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/completions", json=BODY), range(2)))
    spoiled, calm = sorted(answers, key=lambda answer: answer.status_code, reverse=True)
    assert "in place of" in error_of(spoiled, 502, "stage_failed")["message"]
    assert calm.json()["choices"][0]["text"].strip() == TEXT
    assert pieces[spoiled.headers["x-declai-request"]] == BODY["max_tokens"]
    assert ended(idle, spoiled.headers["x-declai-request"]).cost == 0
    assert reserved(idle) == 0


def test_a_token_may_be_said_again_and_no_other_in_its_place(http: httpx.Client, watch: Any) -> None:
    """A node that took the last stage's place begins some tokens before the newest."""
    said: list[Token] = []

    def repeat(take: Take, hub: LinkHub, sender: bytes, frame: Frame, connection: bytes) -> None:
        take(hub, sender, frame, connection)
        if isinstance(frame, Token):
            said.append(frame)
            for token in said[-5:]:
                take(hub, sender, token, connection)
            if len(said) == 6 and is_false:
                take(hub, sender, replace(said[0], token_id=said[0].token_id + 1), connection)

    watch(repeat)
    is_false = False
    assert http.post("/v1/completions", json=BODY).json()["choices"][0]["text"].strip() == TEXT
    said, is_false = [], True
    answer = http.post("/v1/completions", json=BODY)
    assert "sent token 0 in place of 6" in error_of(answer, 502, "stage_failed")["message"]


def test_only_the_last_stage_of_a_job_says_its_tokens(http: httpx.Client, idle: Network, watch: Any) -> None:
    beside, dropped = idle.nodes[0].keys.public, []

    def forge(take: Take, hub: LinkHub, sender: bytes, frame: Frame, connection: bytes) -> None:
        if isinstance(frame, Token):
            before = hub.num_dropped
            take(hub, b"s" * 32, replace(frame, token_id=1), connection)
            dropped.append(hub.num_dropped - before)
            take(hub, beside, replace(frame, token_id=1), connection)
        take(hub, sender, frame, connection)

    watch(forge)
    answer = http.post("/v1/completions", json=BODY).json()
    assert answer["choices"][0]["text"].strip() == TEXT
    assert dropped == [1] * answer["usage"]["completion_tokens"]


def test_a_token_that_the_gateway_cannot_hand_on_ends_the_request_at_once(
    http: httpx.Client, idle: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(running: Running, ready_at: float) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(Running, "saw_first_token", fail)
    response = http.post("/v1/completions", json=BODY)
    assert "failed to serve" in error_of(response, 500)["message"]
    assert ended(idle, response.headers["x-declai-request"]).cost == 0
    wait_until(lambda: not any(node.engine.sequences for node in idle.nodes), "the stages' stop")


def test_a_client_that_leaves_just_before_the_stages_are_ready_sends_no_prompt(
    http: httpx.Client, idle: Network, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[Attempt] = []
    prompts: list[Frame] = []
    made, send = Attempt.__init__, LinkHub.send

    def keep_attempt(attempt: Attempt, *arguments: Any) -> None:
        made(attempt, *arguments)
        attempts.append(attempt)

    def keep_prompt(hub: LinkHub, peer: Peer, frame: Any) -> None:
        if isinstance(frame, Prompt):
            prompts.append(frame)
        send(hub, peer, frame)

    def leave(take: Take, hub: LinkHub, sender: bytes, frame: Frame, connection: bytes) -> None:
        if isinstance(frame, Ready):
            attempts[0].cancel()
        take(hub, sender, frame, connection)

    monkeypatch.setattr(Attempt, "__init__", keep_attempt)
    monkeypatch.setattr(LinkHub, "send", keep_prompt)
    watch(leave)
    response = http.post("/v1/completions", json=BODY)
    assert "before the stages were ready" in response.json()["error"]["message"]
    assert ended(idle, response.headers["x-declai-request"]).cost == 0
    assert (len(attempts), prompts) == (1, [])
    assert reserved(idle) == 0
