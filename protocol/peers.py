"""Who speaks for a role on links, and where its link listens."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from declai.chain.fields import Address, Bytes32
from declai.protocol.message import ProtocolMessage

# What a node that nobody can connect to has in the registry in place of an endpoint: gateways pass its frames on.
RELAY = "relay"


_ENDPOINT = r"^tcp://(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}$"


def _check_port(endpoint: str) -> str:
    if not 0 < int(endpoint.rpartition(":")[2]) < 2**16:
        raise ValueError(f"{endpoint} has no port between 1 and 65535")
    return endpoint


Endpoint = Annotated[str, Field(max_length=268, pattern=_ENDPOINT), AfterValidator(_check_port)]


class Peer(ProtocolMessage):
    """Who speaks for a role: operator's address, public link key (32 bytes), and where its link listens.

    With `relay`, the gateway of this link key listens at `endpoint` and passes on what is sealed for `link_key`.
    """

    address: Address
    link_key: Bytes32
    endpoint: Endpoint
    relay: Bytes32 | None = None

    @property
    def hop(self) -> tuple[bytes, str]:
        """(link key, endpoint) of whoever a frame for this peer is sent to."""
        return self.relay or self.link_key, self.endpoint
