"""A node's way into a gateway: the word that its signer signs, and the broker account that comes back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PlainSerializer, SecretStr

from declai.chain.fields import Address, Signature, Uint64
from declai.protocol.message import ProtocolMessage
from declai.protocol.peers import Peer

# How often a gateway wants to hear from its nodes, unless it tells them otherwise.
HEARTBEAT_S = 2.0


class JoinRequest(ProtocolMessage):
    """Body of `POST /v1/nodes/join`; `join_text` signed (EIP-191) by the node's signer. `timestamp`: Unix seconds.

    `wire_version` is what the node speaks on links; programs of version 1 do not say it.
    """

    address: Address
    timestamp: Uint64
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    signature: Signature
    wire_version: Annotated[int, Field(ge=1, lt=2**16)] = 1


class JoinAnswer(ProtocolMessage):
    """A node's broker account, the gateway's own link, and how often the gateway wants to hear from the node."""

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
