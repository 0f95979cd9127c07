"""A deployment as Python sees it: where the contracts are, and typed access to each."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

from eth_abi.codec import ABICodec
from eth_abi.decoding import StringDecoder
from eth_abi.registry import BaseEquals
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from web3 import HTTPProvider, Web3
from web3._utils.abi import build_strict_registry

from declai.chain.contracts.binding import Event, typed_errors
from declai.chain.contracts.court import DisputeCourt
from declai.chain.contracts.jury import Jury
from declai.chain.contracts.ledger import InferenceLedger
from declai.chain.contracts.models import ModelRegistry
from declai.chain.contracts.nodes import NodeRegistry
from declai.chain.contracts.token import CreditToken
from declai.chain.errors import ChainUnreachable, DeploymentError, host_of
from declai.chain.fields import Address
from declai.chain.messages import Domain

ContractName = Literal["CreditToken", "NodeRegistry", "ModelRegistry", "InferenceLedger", "DisputeCourt"]
RPC_TIMEOUT_S = 20


class Deployment(BaseModel):
    """Addresses of one deployment and the block it began in."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    chain_id: int = Field(ge=1, lt=2**53)
    contracts: dict[ContractName, Address]
    block: int = Field(default=0, ge=0)

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of the messages for this deployment."""
        return Domain(chain_id=self.chain_id, ledger=self.contracts["InferenceLedger"])

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """Read a deployment file. Raises DeploymentError."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise DeploymentError(f"{path} is no deployment file: {error}") from None

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=2) + "\n")


def _codec() -> ABICodec:
    """Reads bytes that are no UTF-8 as replacement characters: contracts take any for a text, from anybody."""
    registry = build_strict_registry()
    registry.unregister_decoder("string")
    decoder = StringDecoder(handle_string_errors="replace")  # type: ignore[no-untyped-call]
    registry.register_decoder(BaseEquals("string"), decoder, label="string")  # type: ignore[no-untyped-call]
    return ABICodec(registry)


class Rpc:
    """A chain's JSON-RPC endpoint. Not to be called from an event loop's thread: calls block."""

    def __init__(self, rpc_url: str) -> None:
        self.rpc_url = rpc_url
        self.w3 = Web3(HTTPProvider(rpc_url, request_kwargs={"timeout": RPC_TIMEOUT_S}))
        self.w3.codec = _codec()

    @functools.cached_property
    def chain_id(self) -> int:
        with typed_errors():
            return int(self.w3.eth.chain_id)

    def block_number(self) -> int:
        with typed_errors():
            return int(self.w3.eth.block_number)

    def timestamp(self, block: int | Literal["latest"] = "latest") -> int:
        """Unix seconds of a block."""
        with typed_errors():
            return int(self.w3.eth.get_block(block)["timestamp"])


class Chain(Rpc):
    """A deployment: the endpoint and the contracts' bindings."""

    def __init__(self, rpc_url: str, deployment: Deployment) -> None:
        super().__init__(rpc_url)
        self.deployment = deployment
        at = deployment.contracts
        first_block = deployment.block
        self.token = CreditToken(self.w3, at["CreditToken"], first_block)
        self.nodes = NodeRegistry(self.w3, at["NodeRegistry"], first_block)
        self.models = ModelRegistry(self.w3, at["ModelRegistry"], first_block)
        self.ledger = InferenceLedger(self.w3, at["InferenceLedger"], first_block)
        self.court = DisputeCourt(self.w3, at["DisputeCourt"], first_block)

    @functools.cached_property
    def jury(self) -> Jury:
        """Where the court's jurors sit. The court made it, so its address is asked of the court."""
        return Jury(self.w3, self.court.jury_address())

    @property
    def domain(self) -> Domain:
        return self.deployment.domain

    def check(self) -> None:
        """Raises ChainUnreachable when nobody answers or the chain is another one than the deployment's."""
        if self.chain_id != self.deployment.chain_id:
            raise ChainUnreachable(
                f"{host_of(self.rpc_url)} is chain {self.chain_id}, the deployment is on {self.deployment.chain_id}: "
                "is the RPC URL right?"
            )

    def events(self, from_block: int, to_block: int) -> list[Event]:
        """Every event of the contracts in a range of blocks (inclusive), in the chain's order."""
        bindings = {b.address: b for b in (self.token, self.nodes, self.models, self.ledger, self.court)}
        filters: Any = {"fromBlock": from_block, "toBlock": to_block, "address": list(bindings)}
        with typed_errors():
            logs = self.w3.eth.get_logs(filters)
        events = (bindings[log["address"]].decode(log) for log in logs)
        return [event for event in events if event is not None]
