"""Brings a whole network up on this machine, step by step, and takes it down again in the reverse order.

Everything is real: an EVM chain, Redis with one account per node, a gateway, stage workers with CURVE links, stakes,
sessions and settlement. Every process dies with this one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from declai.chain.client import Chain, Rpc
from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Role
from declai.chain.fields import to_hex
from declai.chain.keystore import address_of, read_password
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.children import Child, ProcessError, spawn
from declai.client.book import SessionBook
from declai.client.payer import Payer
from declai.devnet.chain_setup import Member, deploy_contracts, fund, offer, publish_model, register, split_layers
from declai.devnet.layout import DevnetLayout, Wallets
from declai.devnet.processes import ROOT, ChainKind, RedisAddress, free_port, launch_chain, launch_redis
from declai.devnet.programs import gateway_settings, node_settings, python_module, write_settings
from declai.errors import ApiError
from declai.fetch import get_json
from declai.ipfs.store import BlockStore
from declai.links.keys import LinkKeyPair
from declai.network import ChainInfo, GatewayInfo, ModelInfo, Network, NodeInfo, RedisInfo, WalletInfo, write
from declai.publish import Publication, add_model
from declai.signin import sign_in

DEFAULT_MODEL = ROOT / "models" / "declai-demo"
API_KEY_BUDGET = 1000 * UNITS_PER_CREDIT
SESSION_S = 300 * 86_400
READY_TIMEOUT_S = 120.0

Report = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What kind of network."""

    folder: Path
    num_nodes: int = 3
    model: Path = DEFAULT_MODEL
    chain: ChainKind = "anvil"
    threads_per_node: int | None = None
    settle_every_s: float = 60.0


@dataclass
class Devnet:
    """One network. `up` returns when all of it is ready; `down` may be called at any time, also after a failed `up`."""

    options: Options
    report: Report
    children: list[Child] = field(default_factory=list)
    nodes: list[Child] = field(default_factory=list)

    def up(self) -> Network:
        """Start everything and write devnet.json.

        Raises:
            ProcessError: something did not start; the text holds the end of its log.
        """
        layout = DevnetLayout(self.options.folder)
        wallets = Wallets(layout)
        self.report(f"starting {self.options.chain} and redis")
        chain_child, rpc_url = launch_chain(self.options.chain, layout.logs)
        self.children.append(chain_child)
        redis_child, redis = launch_redis(layout.folder / "redis")
        self.children.append(redis_child)

        self.report("cutting the model into shards")
        blocks = BlockStore(layout.gateway / "blocks")
        published = add_model(self.options.model, self.options.model.resolve().name, blocks, check=False)

        self.report("deploying contracts, registering gateway and nodes")
        gateway, nodes = self._members(wallets, layout)
        chain = self._set_up_chain(layout, wallets, rpc_url, published, gateway, nodes)

        self.report(f"starting the gateway and {len(nodes)} nodes")
        settings = gateway_settings(layout, rpc_url, redis, gateway, self.options.settle_every_s)
        env = write_settings(layout.gateway_config, settings)
        # The nodes wait for the gateway by themselves, and load while it starts.
        self._spawn("gateway", ["gateway", "start"], layout, env)
        threads = self.options.threads_per_node or 0  # 0: the node looks at the machine
        for number, node in enumerate(nodes):
            settings = node_settings(layout, rpc_url, gateway, node, number, published.manifest.name, threads)
            env = write_settings(layout.node_config(number), settings)
            self.nodes.append(self._spawn(f"node-{number}", ["node", "start"], layout, env))
        self._wait_for(layout, gateway.url, published, len(nodes))

        self.report("opening the requester's session")
        api_key = self._api_key(layout, wallets, chain, gateway)
        network = self._describe(layout, chain, rpc_url, redis, published, gateway, nodes, api_key)
        write(network, layout.network_file)
        return network

    def down(self) -> None:
        """Stop everything: nodes first, the chain last."""
        DevnetLayout(self.options.folder).network_file.unlink(missing_ok=True)
        running = list(reversed(self.children))
        with ThreadPoolExecutor(max(len(running), 1)) as pool:
            list(pool.map(lambda child: child.stop(10), running[:-2]))
        for child in running[-2:]:
            child.stop()
        self.children.clear()

    def dead(self) -> list[Child]:
        """Children that ended by themselves."""
        return [child for child in self.children if not child.alive]

    def _spawn(self, name: str, arguments: list[str], layout: DevnetLayout, env: dict[str, str]) -> Child:
        child = spawn(name, [*python_module("declai"), *arguments], layout.logs / f"{name}.log", {**os.environ, **env})
        self.children.append(child)
        return child

    def _members(self, wallets: Wallets, layout: DevnetLayout) -> tuple[Member, list[Member]]:
        for name in ("treasury", "requester", "publisher"):
            wallets.new(name)

        def member(name: str, url: str = "") -> Member:
            keys = LinkKeyPair.create(layout.link_key(name))
            operator, signer = wallets.new(name), wallets.new(f"{name}-signer")
            return Member(operator, signer, keys.public, f"tcp://127.0.0.1:{free_port()}", url)

        gateway = member("gateway", f"http://127.0.0.1:{free_port()}")
        wallets.new("gateway-session")
        return gateway, [member(f"node-{number}") for number in range(self.options.num_nodes)]

    def _set_up_chain(
        self,
        layout: DevnetLayout,
        wallets: Wallets,
        rpc_url: str,
        published: Publication,
        gateway: Member,
        nodes: list[Member],
    ) -> Chain:
        rpc = Rpc(rpc_url)
        fund(rpc, [account.address for account in wallets.accounts.values()])
        operators = [gateway.operator.address, *(node.operator.address for node in nodes)]
        requester = wallets.accounts["requester"].address
        chain = deploy_contracts(rpc_url, wallets.accounts["treasury"], [requester, *operators])
        chain.deployment.save(layout.deployment_file)
        publish_model(chain, wallets.accounts["publisher"], published.manifest, published.cid)
        register(chain, gateway, Role.GATEWAY)
        ranges = split_layers(published.manifest.num_layers, len(nodes))
        for node, (first_layer, end_layer) in zip(nodes, ranges, strict=True):
            register(chain, node, Role.WORKER)
            offer(chain, node, published.manifest.name, first_layer, end_layer)
        return chain

    def _wait_for(self, layout: DevnetLayout, url: str, published: Publication, num_nodes: int) -> None:
        """Until the gateway has heard of every node."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            for child in self.dead():
                raise ProcessError(f"{child.name} ended with code {child.popen.returncode}:\n{child.log_tail()}")
            if self._num_live(url) >= num_nodes:
                return
            if time.monotonic() > deadline:
                tails = "\n".join(f"--- {child.name}\n{child.log_tail(6)}" for child in self.nodes)
                raise ProcessError(f"not all nodes were ready after {READY_TIMEOUT_S:g} s; see {layout.logs}\n{tails}")
            time.sleep(0.1)

    @staticmethod
    def _num_live(url: str) -> int:
        try:
            nodes = get_json(url, "/v1/nodes")["data"]
        except ApiError:
            return 0
        return sum(bool(node.get("live")) for node in nodes)

    def _api_key(self, layout: DevnetLayout, wallets: Wallets, chain: Chain, gateway: Member) -> str:
        payer = Payer(
            chain,
            SessionBook(layout.folder / "sessions.db"),
            gateway_url=gateway.url,
            keystore=layout.keystore("requester"),
            password=lambda: read_password(layout.password_file),
            unlock=lambda: wallets.accounts["requester"],
        )
        session_key = wallets.accounts["gateway-session"].address
        record = payer.open_session(API_KEY_BUDGET, SESSION_S, gateway.operator.address, key=session_key)
        return sign_in(gateway.url, wallets.accounts["requester"], record.id, chain.deployment.chain_id)

    def _describe(
        self,
        layout: DevnetLayout,
        chain: Chain,
        rpc_url: str,
        redis: RedisAddress,
        published: Publication,
        gateway: Member,
        nodes: list[Member],
        api_key: str,
    ) -> Network:
        deployment = chain.deployment
        ranges = split_layers(published.manifest.num_layers, len(nodes))
        names = ["requester", "treasury", "publisher", "gateway", *(f"node-{i}" for i in range(len(nodes)))]
        return Network(
            chain=ChainInfo(rpc_url=rpc_url, chain_id=deployment.chain_id, block=deployment.block),
            contracts={str(name): address for name, address in deployment.contracts.items()},
            gateway=GatewayInfo(url=gateway.url, address=gateway.operator.address),
            redis=RedisInfo(url=redis.url),
            model=ModelInfo(
                id=to_hex(model_id(published.manifest.name)),
                name=published.manifest.name,
                manifest_cid=published.cid,
                path=str(self.options.model.resolve()),
            ),
            wallets={name: self._wallet(layout, name) for name in names},
            nodes=[
                NodeInfo(address=node.operator.address, layers=layers, pid=child.pid, endpoint=node.endpoint)
                for node, layers, child in zip(nodes, ranges, self.nodes, strict=True)
            ],
            api_key=api_key,
        )

    @staticmethod
    def _wallet(layout: DevnetLayout, name: str) -> WalletInfo:
        keystore = layout.keystore(name)
        address = address_of(keystore) or ""
        return WalletInfo(address=address, keystore=str(keystore), password_file=str(layout.password_file))
