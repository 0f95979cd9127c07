"""What checks share of a node: each fact is looked up once, when first asked for, and so is that it cannot be known."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import httpx
from eth_utils.address import is_address, to_checksum_address
from pydantic_core import from_json

from declai.chain.client import Chain, Deployment
from declai.chain.contracts.models import ModelVersion, model_id
from declai.chain.contracts.nodes import Offer, RegisteredNode
from declai.chain.errors import host_of
from declai.chain.keystore import address_of
from declai.contributor.doctor.facts import Facts, fact
from declai.contributor.doctor.finding import Finding, Unknown
from declai.ipfs.errors import IpfsError
from declai.ipfs.exchange import Exchange
from declai.ipfs.manifest import Manifest
from declai.ipfs.store import BlockStore
from declai.links.keys import LinkKeyPair
from declai.worker.node.identity import pick_offer
from declai.worker.node.living import living_node
from declai.worker.node.settings import NodeSettings

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class JoinedGateway:
    address: str
    url: str


class Case(Facts):
    """A node, by its settings. Reads only: nothing that a running node uses is written, bound or taken away."""

    def __init__(self, given: NodeSettings | None, trouble: str = "") -> None:
        """`given`: None to look at the machine alone, because none were named or for the `trouble` with them."""
        super().__init__()
        self.given = given
        self.trouble = trouble

    @property
    def settings(self) -> NodeSettings:
        if self.given is None:
            raise Unknown("there are no settings")
        return self.given

    @fact
    def chain(self) -> Chain:
        """The chain, reachable and the right one."""
        chain = Chain(self.settings.rpc_url, Deployment.load(self.settings.deployment))
        chain.check()
        return chain

    @fact
    def signer(self) -> str:
        """Address of the signer's keystore, which stays shut."""
        address = address_of(self.settings.signer_keystore)
        if address is None:
            raise Unknown(f"{self.settings.signer_keystore} names no address")
        return str(to_checksum_address(address))

    @fact
    def link_keys(self) -> LinkKeyPair:
        return LinkKeyPair.load(self.settings.link_key)

    @fact
    def operator(self) -> str:
        operator = self.settings.operator or self.chain.nodes.operator_of(self.signer)
        if not int(operator, 16):
            raise Unknown("the node is not registered")
        return operator

    @fact
    def node(self) -> RegisteredNode:
        """The registration."""
        node = self.chain.nodes.node(self.operator)
        if not node.roles:
            raise Unknown("the node is not registered")
        return node

    @fact
    def offer(self) -> tuple[Offer, str]:
        """The offer to serve, and the name of its numeric profile."""
        offers = self.chain.nodes.offers(self.operator, model_id(self.settings.model))
        return pick_offer(self.settings, self.operator, offers)

    @fact
    def version(self) -> ModelVersion:
        """The model's current version."""
        version = self.chain.models.current(model_id(self.settings.model))[1]
        if not version.manifest_cid:
            raise Unknown(f"the registry has no model {self.settings.model!r}")
        return version

    @fact
    def gateway(self) -> JoinedGateway:
        """The gateway to join; what the settings leave out comes from the other side."""
        address, url = self.settings.gateway, self.settings.gateway_url
        if address is None:
            return JoinedGateway(self._address_at(str(url)), str(url))
        url = url or self.chain.nodes.node(address).url
        if not url:
            raise Unknown(f"{address} has no url in the registry")
        return JoinedGateway(address, url)

    @fact
    def gateway_url(self) -> str:
        """As `gateway`, but known also when the gateway is silent."""
        return self.settings.gateway_url or self.gateway.url

    @fact
    def manifest(self) -> Manifest:
        """What the model is made of: from the node's blocks, or from its peers. Keeps nothing."""
        cid, blocks = self.version.manifest_cid, self.blocks
        if blocks is not None and blocks.has(cid):
            return Manifest.load(cid, blocks)
        peers = [self.gateway_url, *self.settings.ipfs_peers]
        with tempfile.TemporaryDirectory() as folder:
            store = BlockStore(Path(folder))
            exchange = Exchange(store, peers, timeout_s=TIMEOUT_S)
            try:
                exchange.fetch(cid)
                return Manifest.load(cid, store)
            except IpfsError as error:
                raise Unknown(f"the model's manifest: {error}") from error
            finally:
                exchange.close()

    @property
    def blocks(self) -> BlockStore | None:
        """The node's block store; None before its first start."""
        folder = self.settings.data_dir / "blocks"
        return BlockStore(folder) if folder.is_dir() else None

    @fact
    def live(self) -> dict[str, Any] | None:
        """What the gateway says of this node, if it hears it."""
        rows = _get(self.gateway_url, "/v1/nodes")["data"]
        return next((row for row in rows if row["address"].lower() == self.operator.lower()), None)

    @property
    def running(self) -> dict[str, Any] | None:
        """The status that a node wrote here in the last seconds; None when none runs with these settings."""
        return living_node(self.settings.status_file)

    def _address_at(self, url: str) -> str:
        try:
            address = _get(url, "/v1/network")["gateway"]["address"]
        except (KeyError, TypeError):
            address = None
        if not is_address(address):
            raise Unknown(f"{host_of(url)} does not say which gateway it is")
        return str(to_checksum_address(address))


Check: TypeAlias = Callable[[Case], Finding]


def _get(url: str, path: str) -> Any:
    """JSON from a gateway. Raises Unknown."""
    try:
        return from_json(httpx.get(f"{url}{path}", timeout=TIMEOUT_S).raise_for_status().content)
    except (httpx.HTTPError, ValueError) as error:
        raise Unknown(f"{host_of(url)} does not answer {path}: {type(error).__name__}") from error
