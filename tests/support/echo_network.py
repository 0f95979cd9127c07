"""A whole network around a real gateway: Anvil, Redis, a gateway under uvicorn, and nodes with the echo engine."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import redis
import uvicorn
from eth_account.signers.local import LocalAccount
from tokenizers import Tokenizer

from declai.api.app import create_app
from declai.api.gateway import Gateway
from declai.api.settings import GatewaySettings
from declai.chain import keystore
from declai.chain.client import Chain, Rpc
from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Role
from declai.chain.messages import new_account, sign_text
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.chain.sender import TransactionSender
from declai.devnet import chain_setup
from declai.devnet.processes import RedisAddress, free_port
from declai.ipfs.manifest import Manifest, Shard, Shards, TokenizerFile
from declai.ipfs.store import BlockStore
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.protocol import siwe
from declai.protocol.grammar import Constraint, GrammarCompiler
from declai.protocol.joining import JoinAnswer, join_text
from declai.protocol.options import Grammar
from declai.protocol.peers import Peer
from declai.protocol.tasks import parse_task_message
from declai.protocol.wire import VERSION
from declai.worker.job.engine_thread import EngineThread, JobTimeouts
from declai.worker.job.served_layers import ServedLayers
from declai.worker.job.stage_engine import StageIdentity
from declai.worker.job.store import NodeStore
from declai.worker.tasks.envelopes import Terms
from declai.worker.tasks.registry import ChainPeerRegistry
from declai.worker.tasks.service import StageService
from tests.support.echo_engine import EchoEngine
from tests.support.tokenizers import sentence_piece
from tests.support.waiting import wait_until

MODEL = "test/echo"
NUM_LAYERS, CONTEXT_LENGTH, EOS = 6, 160, 2
LAYERS = [(0, 2), (2, 4), (4, 6)]
PASSWORD = "test"


def publish_echo(blocks: BlockStore, folder: Path) -> tuple[Manifest, str, Tokenizer]:
    """The echo model's manifest and its CID; its shards are stand-ins."""
    tokenizer = sentence_piece()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>"}')
    files = [folder / "tokenizer.json", folder / "tokenizer_config.json"]

    def shard(name: str) -> Shard:
        return Shard(cid=blocks.add(name.encode()), size=len(name), sha256="00" * 32, num_tensors=1)

    manifest = Manifest(
        name=MODEL,
        architecture={"model_type": "echo"},
        dtype="float32",
        num_layers=NUM_LAYERS,
        hidden_size=4,
        vocab_size=tokenizer.get_vocab_size(),
        context_length=CONTEXT_LENGTH,
        eos_token_ids=[EOS],
        tokenizer=[TokenizerFile(path=p.name, cid=blocks.add(p), size=p.stat().st_size) for p in files],
        shards=Shards(
            embedding=shard("embedding"), layers=[shard(f"layer {i}") for i in range(NUM_LAYERS)], head=shard("head")
        ),
    )
    return manifest, manifest.save(blocks), tokenizer


class ServingThread:
    """An app under a real uvicorn, on a port of its own."""

    def __init__(self, settings: GatewaySettings, sock: socket.socket) -> None:
        self.app = create_app(settings)
        config = uvicorn.Config(self.app, loop="uvloop", log_level="warning", timeout_graceful_shutdown=5)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [sock]}, daemon=True)

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.app.state.gateway
        return gateway

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive(), "the gateway's start", 30)
        assert self._server.started, "the gateway did not start"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()


class EchoNode:
    """A contributor's node: real links, engine thread, task checks and receipts around the echo engine."""

    def __init__(
        self,
        directory: Path,
        chain: Chain,
        manifest: Manifest,
        cid: str,
        tokenizer: Tokenizer,
        layers: tuple[int, int],
        seconds_per_token_layer: float = 1e-4,
        relayed: bool = False,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.chain, self.layers = chain, layers
        self.operator, self.signer = new_account(), new_account()
        self.keys = LinkKeyPair.create(directory / "link.key")
        self.registry = ChainPeerRegistry(chain)
        bind = None if relayed else "tcp://127.0.0.1:0"
        self.links = NodeLinks(self.keys, bind, lambda key: self.registry.holder_of(key) is not None)
        self.engine = EchoEngine(tokenizer, layers[0] == 0, layers[1] == NUM_LAYERS, EOS)
        self.manifest = manifest
        self.grammars = GrammarCompiler(tokenizer, manifest.vocab_size, manifest.eos_token_ids)
        self.store = NodeStore(directory / "node.db")
        served = ServedLayers(model_id(MODEL), cid, *layers, capacity=8)
        options = JobTimeouts(peer_grace_s=1.0)
        self.engine_thread = EngineThread(
            self.links,
            served,
            options=options,
            seconds_per_token_layer=seconds_per_token_layer,
            on_acknowledged=lambda job, acceptance: self.service.keep_acceptance(job, acceptance),
            on_replaced=lambda job, change, frame: self.service.take_replacement(job, change, frame),
        )
        terms = Terms(
            node=self.address,
            link_key=self.keys.public,
            domain=chain.domain,
            model=model_id(MODEL),
            model_name=MODEL,
            manifest_cid=cid,
            num_layers=NUM_LAYERS,
            first_layer=layers[0],
            end_layer=layers[1],
            prompt_price=chain_setup.PROMPT_PRICE,
            output_price=chain_setup.OUTPUT_PRICE,
            max_positions=CONTEXT_LENGTH,
        )
        self.service = StageService(terms, self.registry, self.store, self.engine_thread, self, self.signer)
        self._stopping = threading.Event()
        self._consumer: threading.Thread | None = None

    @property
    def address(self) -> str:
        return str(self.operator.address)

    @property
    def peer(self) -> Peer:
        return Peer(address=self.address, link_key=self.keys.public, endpoint=self.links.endpoint)

    @property
    def member(self) -> chain_setup.Member:
        return chain_setup.Member(self.operator, self.signer, self.keys.public, self.links.endpoint)

    def constraint(self, grammar: Grammar) -> Constraint:
        return self.grammars.constraint(grammar)

    def get(self, first_layer: int, end_layer: int) -> tuple[EchoEngine, StageIdentity]:
        """The engine for a job's layers (`worker.tasks.service.Engines`)."""
        root = self.manifest.shard_root(first_layer, end_layer)
        return self.engine, StageIdentity("fp32", "float32", root)

    def join_body(self, gateway: str, **changes: Any) -> dict[str, Any]:
        """A signed request to join; `changes` are made before it is signed."""
        values = {"address": self.address, "timestamp": int(time.time()), "nonce": secrets.token_hex(16)} | changes
        chain_id = self.chain.deployment.chain_id
        text = join_text(gateway, chain_id, values["address"], values["timestamp"], values["nonce"])
        return {"wire_version": VERSION} | values | {"signature": "0x" + sign_text(text, self.signer).hex()}

    def start(self, url: str, gateway: str) -> None:
        """Join the gateway, beat, and take tasks from the queue with the account that it gave."""
        response = httpx.post(f"{url}/v1/nodes/join", json=self.join_body(gateway))
        assert response.status_code == 200, response.text
        answer = JoinAnswer.model_validate_json(response.content)
        self.engine_thread.start()
        self.engine_thread.beat_to([answer.gateway])
        self.engine_thread.beat_every(0.3)
        self._consumer = threading.Thread(target=self._consume, args=(answer,), daemon=True)
        self._consumer.start()

    def rejoin(self, url: str, gateway: str) -> None:
        """After another join took the account away."""
        assert self._consumer is not None
        self._consumer.join(10)
        answer = JoinAnswer.model_validate_json(
            httpx.post(f"{url}/v1/nodes/join", json=self.join_body(gateway)).content
        )
        self._consumer = threading.Thread(target=self._consume, args=(answer,), daemon=True)
        self._consumer.start()

    def _consume(self, answer: JoinAnswer) -> None:

        client: Any = redis.Redis.from_url(
            answer.redis_url, username=answer.username, password=answer.password.get_secret_value()
        )
        with contextlib.suppress(redis.ConnectionError):
            while not self._stopping.is_set():
                item = client.brpop([answer.key_prefix + "tasks"], timeout=0.2)
                if item is not None:
                    _, envelope = parse_task_message(item[1])
                    threading.Thread(target=self.service.run_stage, args=(envelope,), daemon=True).start()
        client.close()

    def stop(self) -> None:
        self._stopping.set()
        if self._consumer is not None:
            self._consumer.join()
            self.engine_thread.stop()


@dataclass
class Network:
    """Everything, running."""

    url: str
    chain: Chain
    server: ServingThread
    settings: GatewaySettings
    operator: LocalAccount
    payer: LocalAccount
    treasury: LocalAccount
    nodes: list[EchoNode]
    manifest: Manifest
    manifest_cid: str
    tokenizer: Tokenizer

    @property
    def gateway(self) -> Gateway:
        return self.server.gateway

    def open_session(self, key: str | None = None, budget: int = 100 * UNITS_PER_CREDIT) -> bytes:
        """A session on chain; `key` is the gateway's session key unless given. Returns its id."""
        sender = TransactionSender(self.chain, self.payer)
        sender.send(self.chain.token.approve(self.chain.ledger.address, budget))
        sender.send(self.chain.ledger.deposit(budget))
        key = key or self.gateway.keys.session.address
        sender.send(self.chain.ledger.open_session(self.operator.address, key, budget, 86_400))
        wait_until(lambda: self.sessions(key, budget), "the session's event")
        return self.sessions(key, budget)[-1]

    def sessions(self, key: str, budget: int) -> list[bytes]:
        state = self.gateway.index.state
        at_head = state.block >= self.chain.block_number()
        found = [session for session, row in state.sessions.items() if row.key == key and row.budget == budget]
        return found if at_head else []

    def login(self, session: bytes) -> str:
        """An API key for a session, by a wallet's sign-in."""
        nonce = httpx.get(f"{self.url}/v1/auth/nonce").json()
        message = siwe.compose(
            domain=nonce["domain"],
            uri=nonce["uri"],
            address=self.payer.address,
            chain_id=nonce["chain_id"],
            nonce=nonce["nonce"],
            issued_at=datetime.now(UTC),
            statement="Sign in",
            resources=(f"declai:session:0x{session.hex()}",),
        )
        signature = "0x" + sign_text(message, self.payer).hex()
        response = httpx.post(f"{self.url}/v1/auth/login", json={"message": message, "signature": signature})
        assert response.status_code == 200, response.text
        return str(response.json()["api_key"])

    def wait_for_nodes(self) -> None:
        """Until every node is live and idle."""
        directory = self.gateway.directory

        def idle() -> bool:
            ours = {node.address for node in self.nodes}
            live = [node for node in directory.live() if node.address in ours]
            at_rest = all(not directory.num_running(node) and not node.heartbeat.draining for node in live)
            return len(live) == len(self.nodes) and at_rest

        wait_until(idle, "all nodes being live and idle")


@contextlib.contextmanager
def running_network(
    directory: Path,
    rpc_url: str,
    broker: RedisAddress,
    relayed: Container[int] = (),
    way_to: Callable[[str], str] = lambda endpoint: endpoint,
) -> Iterator[Network]:
    """Deploy, register, publish and start everything; stop it again.

    Nobody can connect to the nodes in `relayed`; all connect to the gateway's link at `way_to(where it listens)`.
    """
    treasury, operator, signer, session_key, payer = (new_account() for _ in range(5))
    blocks = BlockStore(directory / "gateway" / "blocks")
    manifest, cid, tokenizer = publish_echo(blocks, directory)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    keys = directory / "keys"
    password_file = directory / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(PASSWORD)
    for name, account in (("signer", signer), ("session", session_key)):
        keystore.save(account, keys / f"{name}.json", PASSWORD, keystore.SCRYPT_LIGHT)
    link_keys = LinkKeyPair.create(keys / "link.key")
    link_bind = f"tcp://127.0.0.1:{free_port()}"
    rpc_accounts = [treasury.address, operator.address, signer.address, payer.address]
    chain_setup.fund(Rpc(rpc_url), rpc_accounts)
    chain = chain_setup.deploy_contracts(rpc_url, treasury, [operator.address, payer.address])
    chain.deployment.save(directory / "deployment.json")
    chain_setup.register(
        chain, chain_setup.Member(operator, signer, link_keys.public, way_to(link_bind), url), int(Role.GATEWAY)
    )  # type: ignore[arg-type]
    chain_setup.publish_model(chain, treasury, manifest, cid)
    settings = GatewaySettings(
        rpc_url=rpc_url,
        deployment=directory / "deployment.json",
        public_url=url,
        link_bind=link_bind,
        data_dir=directory / "gateway",
        signer_keystore=keys / "signer.json",
        session_keystore=keys / "session.json",
        link_key=keys / "link.key",
        password_file=password_file,
        redis_url=broker.url,
        max_body_bytes=256 * 1024,
        ready_timeout_s=5.0,
        stall_timeout_s=3.0,
        receipt_timeout_s=5.0,
    )
    nodes = []
    for number, layers in enumerate(LAYERS):
        folder = directory / f"node{number}"
        nodes.append(EchoNode(folder, chain, manifest, cid, tokenizer, layers, relayed=number in relayed))
        register_node(chain, treasury, nodes[-1])
    server = ServingThread(settings, sock)
    server.start()
    network = Network(url, chain, server, settings, operator, payer, treasury, nodes, manifest, cid, tokenizer)
    try:
        for node in nodes:
            node.start(url, operator.address)
        network.wait_for_nodes()
        yield network
    finally:
        server.stop()
        for node in nodes:
            node.stop()


def register_node(chain: Chain, treasury: LocalAccount, node: EchoNode) -> None:
    """Stake and offer, with real transactions."""
    chain_setup.fund(Rpc(chain.rpc_url), [node.address])
    TransactionSender(chain, treasury).send(chain.token.mint(node.address, chain_setup.GRANT))
    chain_setup.register(chain, node.member, Role.WORKER)
    chain_setup.offer(chain, node.member, MODEL, *node.layers)
