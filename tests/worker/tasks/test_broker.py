"""The queue: what a node's account can do (pop its own), what garbage does (nothing), what a restart does (nothing)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis as sync_redis
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry as SyncRetry

from declai.api.errors import BrokerUnavailable, NoCapacity
from declai.api.nodes import accounts
from declai.api.nodes.dispatch import dispatch
from declai.chain.messages import new_account
from declai.children import Child, spawn
from declai.devnet.processes import ROOT
from declai.protocol import tasks
from declai.protocol.errors import MalformedTask
from declai.protocol.jobs import Envelope
from tests.support.redis_server import RedisServer

OPERATOR = new_account().address
OTHER = new_account().address
SIGNATURE = b"\1" * 65

FORBIDDEN = [
    ["GET", "mine"], ["SET", "mine", "1"], ["LPUSH", "mine", "1"], ["RPUSH", "mine", "1"], ["LPOP", "mine"],
    ["LLEN", "mine"], ["LRANGE", "mine", "0", "-1"], ["SADD", "mine", "1"], ["DEL", "mine"], ["EXPIRE", "mine", "1"],
    ["BRPOP", "theirs", "0.01"], ["BRPOP", "mine", "theirs", "0.01"], ["RPOPLPUSH", "theirs", "mine"],
    ["BRPOPLPUSH", "theirs", "mine", "1"], ["RENAME", "theirs", "mine"], ["COPY", "theirs", "mine"], ["DUMP", "theirs"],
    ["KEYS", "*"], ["SCAN", "0"], ["RANDOMKEY"], ["DBSIZE"], ["FLUSHDB"], ["FLUSHALL"], ["SWAPDB", "0", "1"],
    ["CONFIG", "GET", "*"], ["CONFIG", "SET", "maxmemory", "1"], ["EVAL", "return 1", "0"], ["SCRIPT", "FLUSH"],
    ["PUBLISH", "c", "1"], ["SUBSCRIBE", "c"], ["PSUBSCRIBE", "*"], ["PUBSUB", "CHANNELS"], ["MONITOR"], ["INFO"],
    ["CLIENT", "LIST"], ["CLIENT", "KILL", "TYPE", "normal"], ["CLIENT", "PAUSE", "1000"], ["ACL", "LIST"],
    ["ACL", "SETUSER", "me", "+@all"], ["ACL", "WHOAMI"], ["DEBUG", "SLEEP", "1"], ["SHUTDOWN"], ["SAVE"], ["BGSAVE"],
    ["REPLICAOF", "127.0.0.1", "1"], ["SLAVEOF", "127.0.0.1", "1"], ["MODULE", "LIST"], ["SELECT", "1"], ["MULTI"],
    ["XADD", "mine", "*", "a", "b"], ["BLPOP", "mine", "0.01"], ["MEMORY", "USAGE", "mine"], ["SLOWLOG", "GET"],
    ["LATENCY", "RESET"], ["SYNC"], ["PSYNC", "?", "-1"], ["OBJECT", "ENCODING", "theirs"], ["WAIT", "1", "1"],
]  # fmt: skip


@pytest.fixture
async def admin(redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis_server.url)
    yield client
    await client.aclose()


def node_client(server: RedisServer, credentials: accounts.Credentials) -> sync_redis.Redis:
    return sync_redis.Redis(
        port=server.address.port,
        username=credentials.username,
        password=credentials.password.get_secret_value(),
        retry=SyncRetry(NoBackoff(), 0),
    )


def envelope(text: str = "{}") -> Envelope:
    return Envelope(job=text, signature=SIGNATURE)


async def test_a_node_can_pop_its_own_queue_and_nothing_else(redis_server: RedisServer, admin: Redis) -> None:
    await dispatch(admin, [(OTHER, envelope())])
    with node_client(redis_server, await accounts.grant(admin, OPERATOR)) as node:
        assert node.ping()
        assert node.brpop([tasks.queue_key(OPERATOR)], timeout=0.01) is None
        names = {"mine": tasks.queue_key(OPERATOR), "theirs": tasks.queue_key(OTHER)}
        for command in FORBIDDEN:
            with pytest.raises(ResponseError) as refusal:
                node.execute_command(*[names.get(word, word) for word in command])
            assert any(word in str(refusal.value).lower() for word in ("permission", "noperm", "noauth")), command
        await dispatch(admin, [(OPERATOR, envelope("mine"))])
        popped = node.brpop([tasks.queue_key(OPERATOR)], timeout=1)
        assert tasks.parse_task_message(popped[1])[1].job == "mine"
    assert await admin.llen(tasks.queue_key(OTHER)) == 1
    await admin.delete(tasks.queue_key(OTHER))


async def test_reset_leaves_a_node_without_any_power(redis_server: RedisServer, admin: Redis) -> None:
    with node_client(redis_server, await accounts.grant(admin, OPERATOR)) as node:
        connection = node.connection_pool.get_connection()
        with contextlib.suppress(ResponseError):  # Redis 6 refuses it, later ones reset to the default user, who is off
            connection.send_command("RESET")
            connection.read_response()
        connection.send_command("GET", "x")
        with pytest.raises(RedisError):
            connection.read_response()


async def test_a_new_grant_ends_what_was_open(redis_server: RedisServer, admin: Redis) -> None:
    first = node_client(redis_server, await accounts.grant(admin, OPERATOR))
    first.ping()
    second = node_client(redis_server, await accounts.grant(admin, OPERATOR))
    with pytest.raises(sync_redis.ConnectionError):
        first.ping()
    second.ping()


async def test_a_node_with_too_many_connections_loses_them(redis_server: RedisServer, admin: Redis) -> None:
    credentials = await accounts.grant(admin, OPERATOR)
    clients = [node_client(redis_server, credentials) for _ in range(6)]
    for client in clients:
        client.ping()
    assert await accounts.limit_connections(admin, limit=6) == {}
    assert await accounts.limit_connections(admin, limit=5) == {credentials.username: 6}
    held = [c for c in await admin.client_list() if c["user"] == credentials.username]
    assert held == []


async def test_an_unreachable_redis_is_a_typed_error() -> None:
    client = Redis(port=1, retry=Retry(NoBackoff(), 0))
    for call in (
        accounts.grant(client, OPERATOR),
        accounts.limit_connections(client),
    ):
        with pytest.raises(BrokerUnavailable):
            await call
    with pytest.raises(NoCapacity):
        await dispatch(client, [(OPERATOR, envelope())])


async def test_secrets_stay_out_of_texts(admin: Redis) -> None:
    credentials = await accounts.grant(admin, OPERATOR)
    secret = credentials.password.get_secret_value()
    assert secret not in repr(credentials)
    assert secret not in str(await admin.acl_list())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(json_values, st.sampled_from(["headers", "body", "properties", "id", "task", "arguments"]))
def test_whatever_is_in_the_queue_is_a_task_or_malformed(value: object, where: str) -> None:
    fields = tasks.task_fields(envelope(), "9b2e8a5c-7a39-4d33-a3a4-5c4e0c6f9d10")
    if where in fields:
        fields[where] = value
    elif where == "arguments":
        fields["body"] = base64.b64encode(json.dumps(value).encode()).decode()
    else:
        fields["headers"][where] = value
    for message in (value, fields):
        try:
            task_id, parsed = tasks.parse_task_message(json.dumps(message))
        except MalformedTask:
            continue  # most are
        assert parsed == envelope()
        assert len(task_id) == 36


class Node:
    """A Celery worker process and what it has printed."""

    def __init__(self, child: Child, password_file: Path) -> None:
        self.child, self.password_file = child, password_file

    def output(self) -> str:
        return self.child.log_path.read_text() if self.child.log_path.exists() else ""

    def tell_password(self, credentials: accounts.Credentials) -> None:
        fresh = self.password_file.with_suffix(".new")
        fresh.write_text(json.dumps(credentials.password.get_secret_value()))
        fresh.rename(self.password_file)

    async def until(self, condition: Callable[[], bool], timeout_s: float = 40) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.child.alive, self.output()
            assert time.monotonic() < deadline, self.output()
            await asyncio.sleep(0.02)


@pytest.fixture
async def node(redis_server: RedisServer, admin: Redis, tmp_path: Path) -> AsyncIterator[Node]:
    password_file = tmp_path / "password.json"
    credentials = await accounts.grant(admin, OPERATOR)
    password_file.write_text(json.dumps(credentials.password.get_secret_value()))
    script = [
        sys.executable,
        "-m",
        "tests.worker.tasks.celery_node",
        redis_server.bare_url,
        OPERATOR,
        str(password_file),
    ]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    child = spawn("node", script, tmp_path / "node.log", env)
    made = Node(child, password_file)
    yield made
    child.stop()
    await admin.delete(tasks.queue_key(OPERATOR))


async def test_a_worker_with_a_pop_only_account_runs_tasks_and_survives_garbage(
    admin: Redis, node: Node, redis_server: RedisServer
) -> None:
    key = tasks.queue_key(OPERATOR)
    good = tasks.task_fields(envelope("x"), "9b2e8a5c-7a39-4d33-a3a4-5c4e0c6f9d10")
    garbage: list[bytes] = [
        b"", b"\xff\xfe", b"{", b"[]", b"null", b"1", b'"text"', b"{}", b"[" * 100_000,
        json.dumps(good | {"body": "!not base64!"}).encode(), json.dumps(good | {"body": "AAAA"}).encode(),
        json.dumps(good | {"headers": {}}).encode(), json.dumps(good | {"properties": 7, "headers": []}).encode(),
        json.dumps(good | {"headers": good["headers"] | {"task": "celery.chord"}}).encode(),
        json.dumps({k: v for k, v in good.items() if k != "body"}).encode(),
    ]  # fmt: skip
    for index, item in enumerate(garbage):
        await admin.lpush(key, item)
        await dispatch(admin, [(OPERATOR, envelope(f"after-{index}"))])
    await node.until(lambda: all(f"ran after-{i}\n" in node.output() for i in range(len(garbage))))
    assert "ran x" not in node.output()
    assert await admin.llen(key) == 0


async def test_a_worker_consumes_again_after_redis_restarts_and_forgets_its_account(
    admin: Redis, node: Node, redis_server: RedisServer
) -> None:
    await dispatch(admin, [(OPERATOR, envelope("before"))])
    await node.until(lambda: "ran before\n" in node.output())
    redis_server.restart()
    await admin.connection_pool.disconnect()
    await dispatch(admin, [(OPERATOR, envelope("meanwhile"))])
    node.tell_password(await accounts.grant(admin, OPERATOR))
    await node.until(lambda: "ran meanwhile\n" in node.output())
    await dispatch(admin, [(OPERATOR, envelope("after"))])
    await node.until(lambda: "ran after\n" in node.output())


async def test_a_worker_drains_on_sigterm(admin: Redis, node: Node) -> None:
    await dispatch(admin, [(OPERATOR, envelope("one"))])
    await node.until(lambda: "ran one\n" in node.output())
    node.child.popen.send_signal(signal.SIGTERM)
    await asyncio.to_thread(node.child.popen.wait, 30)
    assert node.child.popen.returncode == 0
    assert "drained" in node.output()
