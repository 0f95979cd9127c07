"""The task queues of nodes as the gateway keeps them: an account per node that can pop its own queue, and dispatch.

A node joins with a signed request and gets an account whose only powers are PING and BRPOP on its own keys. The gateway
alone writes: one LPUSH of a Celery message (protocol 2, JSON) per stage. Torch-free.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import uuid
from collections import defaultdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SecretStr
from pydantic_core import from_json
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from chain.fields import Address, Signature, Uint64
from worker.errors import BrokerError, MalformedTask
from worker.jobs import MAX_ENVELOPE_BYTES, Envelope, Peer

QUEUE = "tasks"
TASK_NAME = "declai.run_stage"
MAX_MESSAGE_BYTES = 2 * MAX_ENVELOPE_BYTES
MAX_CONNECTIONS_PER_NODE = 8


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JoinRequest(_Message):
    """Body of `POST /v1/nodes/join`; `join_text` signed (EIP-191) by the node's signer. `timestamp`: Unix seconds."""

    address: Address
    timestamp: Uint64
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    signature: Signature


class JoinAnswer(_Message):
    """A node's broker account, and the gateway's own link."""

    redis_url: Annotated[str, Field(max_length=300, pattern=r"^rediss?://[^@\s]+$")]
    username: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,80}$")]
    password: Annotated[SecretStr, PlainSerializer(SecretStr.get_secret_value, when_used="json")]
    key_prefix: Annotated[str, Field(pattern=r"^node:0x[0-9a-f]{40}:$")]
    gateway: Peer
    heartbeat_s: Annotated[float, Field(gt=0, le=60)]


def join_text(gateway: str, chain_id: int, address: str, timestamp: int, nonce: str) -> str:
    """What a node signs to join a gateway: bound to both, to the chain, and to a moment."""
    return (
        "DeCLAI join\n"
        f"gateway: {gateway.lower()}\nchain: {chain_id}\nnode: {address.lower()}\ntime: {timestamp}\nnonce: {nonce}"
    )


def key_prefix(operator: str) -> str:
    """Prefix of all keys of a node's account."""
    return f"node:{operator.lower()}:"


def queue_key(operator: str) -> str:
    """The Redis list that a node consumes."""
    return key_prefix(operator) + QUEUE


def username(operator: str) -> str:
    """Name of a node's Redis account."""
    return f"node-{operator.lower()}"


class Credentials(BaseModel):
    """A node's account. The password exists here and in the node; Redis keeps its hash."""

    model_config = ConfigDict(frozen=True)

    username: str
    password: SecretStr
    key_prefix: str


async def grant(redis: Redis, operator: str) -> Credentials:
    """Give a node a fresh account that can pop its own queue; its older password and connections end.

    Raises BrokerError when Redis cannot be reached or refuses.
    """
    password = secrets.token_urlsafe(32)
    hashed = hashlib.sha256(password.encode()).hexdigest()  # so that no Redis log or monitor sees the password
    rules = ["reset", "on", "resetkeys", "resetchannels", "-@all", "+ping", "+brpop", f"~{key_prefix(operator)}*"]
    try:
        await _execute(redis, "ACL", "SETUSER", username(operator), *rules, f"#{hashed}")
        await _disconnect(redis, username(operator))
    except RedisError as error:
        raise BrokerError(f"no account for {operator}: {error}") from error
    return Credentials(username=username(operator), password=SecretStr(password), key_prefix=key_prefix(operator))


async def revoke(redis: Redis, operator: str) -> None:
    """Take a node's account, its open connections and its waiting tasks away. Raises BrokerError."""
    try:
        await _execute(redis, "ACL", "DELUSER", username(operator))
        await _disconnect(redis, username(operator))
        await redis.delete(queue_key(operator))
    except RedisError as error:
        raise BrokerError(f"the account of {operator} may still be open: {error}") from error


async def _execute(redis: Redis, *command: str) -> None:
    await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def _disconnect(redis: Redis, user: str) -> None:
    try:
        await _execute(redis, "CLIENT", "KILL", "USER", user)
    except ResponseError as error:
        if "no such user" not in str(error).lower():
            raise


async def limit_connections(redis: Redis, limit: int = MAX_CONNECTIONS_PER_NODE) -> dict[str, int]:
    """End all connections of nodes that hold more than `limit`; returns how many each such account held.

    To be called every few seconds: Redis itself limits the sum of all connections only. Raises BrokerError.
    """
    held: dict[str, list[str]] = defaultdict(list)
    try:
        for client in await redis.client_list():
            if client["user"].startswith("node-"):
                held[client["user"]].append(client["id"])
        greedy = {user: len(ids) for user, ids in held.items() if len(ids) > limit}
        for user in greedy:
            await _disconnect(redis, user)
    except RedisError as error:
        raise BrokerError(f"connections cannot be counted: {error}") from error
    return greedy


def task_message(envelope: Envelope, task_id: str) -> bytes:
    """The queue item (a Celery message, protocol 2, JSON) that asks a node to run a stage."""
    return json.dumps(task_fields(envelope, task_id)).encode()


def task_fields(envelope: Envelope, task_id: str) -> dict[str, Any]:
    """The form that kombu and Celery expect around a task's JSON arguments."""
    arguments = [[envelope.model_dump(mode="json")], {}, {}]
    return {
        "body": base64.b64encode(json.dumps(arguments).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": TASK_NAME, "id": task_id, "root_id": task_id, "ignore_result": True},
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_tag": task_id,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": 0,
            "body_encoding": "base64",
        },
    }


def parse_task_message(item: bytes | str) -> tuple[str, Envelope]:
    """(task id, envelope) of a queue item.

    Raises:
        MalformedTask: it is not what `task_message` makes, in whatever way.
    """
    if len(item) > MAX_MESSAGE_BYTES:
        raise MalformedTask(f"{len(item)} bytes are too many")
    try:
        # pydantic's parser bounds the nesting; that of the standard library can crash the process.
        fields = from_json(item)
        if fields["headers"]["task"] != TASK_NAME:
            raise MalformedTask("another task")
        [[envelope], keyword_arguments, embedded] = from_json(base64.b64decode(fields["body"], validate=True))
        if keyword_arguments != {} or embedded != {}:
            raise MalformedTask("a task has one argument and no callbacks")
        return str(uuid.UUID(fields["headers"]["id"])), Envelope.model_validate(envelope)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedTask(f"no task message: {type(error).__name__}") from None


async def dispatch(redis: Redis, operator: str, envelope: Envelope) -> str:
    """Put a task into a node's queue; returns its id. Raises BrokerError when it may not have arrived."""
    task_id = str(uuid.uuid4())
    try:
        await redis.lpush(queue_key(operator), task_message(envelope, task_id))
    except RedisError as error:
        raise BrokerError(f"no task for {operator}: {error}") from error
    return task_id
