"""A node's way in: its signer's word against the registry, then a broker account that can only pop its own queue."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError

from declai.api.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    DeadlineExpired,
    InvalidSignature,
    NoCapacity,
    NonceReplayed,
    WrongWireVersion,
)
from declai.api.nodes.accounts import grant
from declai.api.nodes.directory import NodeDirectory
from declai.chain.errors import BadSignature
from declai.chain.messages import recover_text
from declai.protocol.joining import HEARTBEAT_S, JoinAnswer, JoinRequest, join_text
from declai.protocol.peers import Peer
from declai.protocol.wire import VERSION

MAX_AGE_S = 120
NONCE_KEY = "gateway:{gateway}:join:{nonce}"


class NodeNotRegistered(AuthenticationFailed):
    """The registry has no active worker with this address and signer."""

    status, code = 403, "node_not_registered"


class Joining:
    """Lets nodes in, for one gateway."""

    def __init__(
        self, redis: Redis, directory: NodeDirectory, *, gateway: Peer, chain_id: int, node_redis_url: str
    ) -> None:
        """`node_redis_url` is what nodes are told: without user and password."""
        self._redis = redis
        self._directory = directory
        self._gateway = gateway
        self._chain_id = chain_id
        self._node_redis_url = node_redis_url

    async def join(self, asked: JoinRequest) -> JoinAnswer:
        """Check who asks and open its account; an older account of the node ends.

        Raises:
            WrongWireVersion: no frame of the node's would be understood.
            InvalidSignature, DeadlineExpired, NonceReplayed: the word is forged, old, or was used.
            NodeNotRegistered: no active worker of the registry has this signer.
            NoCapacity: the broker cannot be reached.
        """
        if asked.wire_version != VERSION:
            raise WrongWireVersion(
                f"this gateway speaks version {VERSION} of the wire format, the node {asked.wire_version}: "
                "install the same release of declai on both",
                param="wire_version",
            )
        age_s = time.time() - asked.timestamp
        if abs(age_s) > MAX_AGE_S:
            raise DeadlineExpired(f"the join was signed {age_s:.0f} s ago, at most {MAX_AGE_S} are allowed: sign again")
        text = join_text(self._gateway.address, self._chain_id, asked.address, asked.timestamp, asked.nonce)
        try:
            signer = recover_text(text, asked.signature)
        except BadSignature as error:
            raise InvalidSignature(str(error)) from None
        await self._check_registered(asked.address, signer)
        key = NONCE_KEY.format(gateway=self._gateway.address.lower(), nonce=f"{asked.address.lower()}:{asked.nonce}")
        try:
            if not await self._redis.set(key, 1, ex=2 * MAX_AGE_S, nx=True):
                raise NonceReplayed("this join was used before: sign a new one")
            credentials = await grant(self._redis, asked.address)
        except (BrokerUnavailable, RedisError) as error:
            raise NoCapacity(f"the task queue cannot be reached ({type(error).__name__}): join again soon") from None
        return JoinAnswer(
            redis_url=self._node_redis_url,
            username=credentials.username,
            password=credentials.password,
            key_prefix=credentials.key_prefix,
            gateway=self._gateway,
            heartbeat_s=HEARTBEAT_S,
        )

    async def _check_registered(self, address: str, signer: str) -> None:
        worker = self._directory.worker(address)
        if worker is None or worker.signer != signer:
            # The node may have registered in the last block.
            await asyncio.to_thread(self._directory.refresh)
            worker = self._directory.worker(address)
        if worker is None:
            raise NodeNotRegistered(
                f"{address} is no worker with enough stake at an endpoint that this gateway can use: "
                "`declai node register` first"
            )
        if worker.signer != signer:
            raise NodeNotRegistered(f"signed by {signer}, the registry's signer of {address} is {worker.signer}")


def without_credentials(redis_url: str) -> str:
    """A Redis URL as nodes may see it."""
    parts = urlsplit(redis_url)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or "127.0.0.1"
    return f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"
