"""Broker accounts of nodes: each can pop its own queue and nothing else; greedy ones lose their connections."""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict

from pydantic import BaseModel, ConfigDict, SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from declai.api.errors import BrokerUnavailable
from declai.protocol.tasks import key_prefix, username

MAX_CONNECTIONS_PER_NODE = 8


class Credentials(BaseModel):
    """A node's account. The password exists here and in the node; Redis keeps its hash."""

    model_config = ConfigDict(frozen=True)

    username: str
    password: SecretStr
    key_prefix: str


async def grant(redis: Redis, operator: str) -> Credentials:
    """Give a node a fresh account that can pop its own queue; its older password and connections end.

    Raises BrokerUnavailable when Redis cannot be reached or refuses.
    """
    password = secrets.token_urlsafe(32)
    hashed = hashlib.sha256(password.encode()).hexdigest()  # so that no Redis log or monitor sees the password
    rules = ["reset", "on", "resetkeys", "resetchannels", "-@all", "+ping", "+brpop", f"~{key_prefix(operator)}*"]
    try:
        await _execute(redis, "ACL", "SETUSER", username(operator), *rules, f"#{hashed}")
        await _disconnect(redis, username(operator))
    except RedisError as error:
        raise BrokerUnavailable(f"no account for {operator}: {error}") from error
    return Credentials(username=username(operator), password=SecretStr(password), key_prefix=key_prefix(operator))


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

    To be called every few seconds: Redis itself limits the sum of all connections only. Raises BrokerUnavailable.
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
        raise BrokerUnavailable(f"connections cannot be counted: {error}") from error
    return greedy
