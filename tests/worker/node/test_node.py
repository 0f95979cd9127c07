"""Whole nodes as processes: a chain, a Redis, a small model, three supervised nodes, a gateway that speaks by hand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import torch
from eth_account.signers.local import LocalAccount
from pydantic import ValidationError
from redis.asyncio import Redis
from transformers import AutoModelForCausalLM, LlamaConfig

from declai.api.nodes.accounts import Credentials, grant
from declai.chain.client import Chain, Rpc
from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Role
from declai.chain.keystore import open_keystore
from declai.chain.messages import Assignment, InferenceRequest, digest, new_account, recover_text, sign
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.chain.sender import TransactionSender
from declai.children import Child, spawn
from declai.devnet.chain_setup import Member, deploy_contracts, fund, offer, publish_model, register
from declai.devnet.layout import DevnetLayout, Wallets
from declai.devnet.processes import ChainKind, free_port, launch_chain
from declai.ipfs.exchange import raw_block_response
from declai.ipfs.store import BlockStore
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.protocol import tasks, wire
from declai.protocol.jobs import StageJob, seal
from declai.protocol.joining import JoinAnswer, JoinRequest, join_text
from declai.protocol.options import GenerationOptions, Sampling
from declai.protocol.peers import Peer
from declai.protocol.receipt_checks import SignedPlan, Transcript, verify_job_receipts
from declai.protocol.receipts import SignedReceipt, acceptance_of
from declai.protocol.ring import new_ring
from declai.protocol.startup import explained
from declai.publish import Publication, add_model
from declai.worker.engine import EngineLimits, SequenceSpec
from declai.worker.engine.memory.kept_rows import KeptRows
from declai.worker.errors import BrokerError, NodeStartError, WorkerError
from declai.worker.node import runtime
from declai.worker.node.identity import open_identity
from declai.worker.node.membership import Membership
from declai.worker.node.settings import NodeSettings
from declai.worker.node.stages import ModelStages, NotLoaded
from declai.worker.node.startup import STEPS, NodeParts
from declai.worker.tasks.registry import ChainPeerRegistry
from tests.support.leftovers import leaving_nothing_open
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

MODEL = "tests/tiny"
CUTS = [(0, 2), (2, 3), (3, 5)]
PROMPT = [5, 17, 3, 42, 8, 9, 60]
GREEDY = Sampling(temperature=0)


def save_tiny_model(folder: Path) -> Any:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        eos_token_id=2,
        bos_token_id=1,
        initializer_range=0.5,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    return model


class World:
    """Chain, Redis, model, gateway by hand, nodes."""

    def __init__(self, folder: Path, redis_server: RedisServer, chain_kind: ChainKind) -> None:
        self.folder, self.redis_server = folder, redis_server
        self.layout = DevnetLayout(folder / "net")
        wallets = Wallets(self.layout)
        self.model = save_tiny_model(folder / "model")
        self.blocks = BlockStore(folder / "blocks")
        self.published: Publication = add_model(folder / "model", MODEL, self.blocks, check=False)
        self.chain_child, self.rpc_url = launch_chain(chain_kind, folder / "logs")
        self.session_key: LocalAccount = new_account()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self.http.server_address[1]}"
        for name in ("treasury", "requester", "publisher"):
            wallets.new(name)
        self.gateway = self._member(wallets, "gateway", url)
        self.members = [self._member(wallets, f"node-{n}") for n in range(len(CUTS))]
        self.chain = self._set_up(wallets)
        self.domain = self.chain.domain
        registry = {m.link_key for m in [self.gateway, *self.members]}
        keys = LinkKeyPair.load(self.layout.link_key("gateway"))
        self.links = NodeLinks(keys, self.gateway.endpoint, registry.__contains__)
        self.children: list[Child | None] = [None] * len(CUTS)
        self.frames: list[tuple[int, wire.Frame]] = []
        self.nonce = 0
        self.admin = redis.Redis.from_url(redis_server.url)

    def _member(self, wallets: Wallets, name: str, url: str = "") -> Member:
        keys = LinkKeyPair.create(self.layout.link_key(name))
        operator, signer = wallets.new(name), wallets.new(f"{name}-signer")
        return Member(operator, signer, keys.public, f"tcp://127.0.0.1:{free_port()}", url)

    def _set_up(self, wallets: Wallets) -> Chain:
        accounts = wallets.accounts
        fund(Rpc(self.rpc_url), [account.address for account in accounts.values()])
        operators = [m.operator.address for m in [self.gateway, *self.members]]
        chain = deploy_contracts(self.rpc_url, accounts["treasury"], [accounts["requester"].address, *operators])
        chain.deployment.save(self.layout.deployment_file)
        publish_model(chain, accounts["publisher"], self.published.manifest, self.published.cid)
        register(chain, self.gateway, Role.GATEWAY)
        for member, (first, end) in zip(self.members, CUTS, strict=True):
            register(chain, member, Role.WORKER)
            offer(chain, member, MODEL, first, end)
        payer = TransactionSender(chain, accounts["requester"])
        budget = 1000 * UNITS_PER_CREDIT
        payer.send(chain.token.approve(chain.ledger.address, budget))
        payer.send(chain.ledger.deposit(budget))
        receipt = payer.send(
            chain.ledger.open_session(self.gateway.operator.address, self.session_key.address, budget, 86_400)
        )
        opened = chain.events(receipt["blockNumber"], receipt["blockNumber"])
        self.session = next(event.values["session"] for event in opened if "session" in event.values)
        return chain

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/v1/network":
                    body = json.dumps({"gateway": {"address": world.gateway.operator.address}}).encode()
                    self._answer(200, body)
                else:
                    cid = self.path.removeprefix("/ipfs/").partition("?")[0]
                    status, _, body = raw_block_response(world.blocks, cid)
                    self._answer(status, body)

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                request = JoinRequest.model_validate_json(self.rfile.read(length))
                self._answer(200, world.join(request))

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                return

        return Handler

    def join(self, request: JoinRequest) -> bytes:
        gateway = self.gateway.operator.address
        text = join_text(gateway, self.domain.chain_id, request.address, request.timestamp, request.nonce)
        signer = recover_text(text, request.signature)
        member = next(m for m in self.members if m.operator.address == request.address)
        assert signer == member.signer.address

        async def account() -> Credentials:
            client = Redis.from_url(self.redis_server.url)
            try:
                return await grant(client, request.address)
            finally:
                await client.aclose()

        credentials = asyncio.run(account())
        answer = JoinAnswer(
            redis_url=self.redis_server.bare_url,
            username=credentials.username,
            password=credentials.password,
            key_prefix=credentials.key_prefix,
            gateway=self.peer(self.gateway),
            heartbeat_s=0.5,
        )
        return answer.model_dump_json().encode()

    @staticmethod
    def peer(member: Member) -> Peer:
        return Peer(address=member.operator.address, link_key=member.link_key, endpoint=member.endpoint)

    def start_node(self, number: int) -> Child:
        layout, member = self.layout, self.members[number]
        variables = {
            "DECLAI_RPC_URL": self.rpc_url,
            "DECLAI_DEPLOYMENT": str(layout.deployment_file),
            "DECLAI_GATEWAY_URL": self.gateway.url,
            "DECLAI_MODEL": MODEL,
            "DECLAI_SIGNER_KEYSTORE": str(layout.keystore(f"node-{number}-signer")),
            "DECLAI_PASSWORD_FILE": str(layout.password_file),
            "DECLAI_LINK_KEY": str(layout.link_key(f"node-{number}")),
            "DECLAI_LINK_BIND": member.endpoint,
            "DECLAI_DATA_DIR": str(layout.node(number)),
            "DECLAI_NUM_THREADS": "1",
            "DECLAI_PEER_GRACE_S": "1",
        }
        log_path = self.folder / "logs" / f"node-{number}-{time.monotonic_ns()}.log"
        child = spawn(f"node-{number}", [sys.executable, "-m", "declai.worker.node"], log_path, os.environ | variables)
        self.children[number] = child
        return child

    def until(self, condition: Callable[[], object], timeout_s: float = 60) -> None:
        numbers = {member.link_key: number for number, member in enumerate(self.members)}

        def receive() -> None:
            for inbound in self.links.poll(0.02):
                self.frames.append((numbers[inbound.sender], inbound.frame))

        def seen() -> str:
            logs = [child.log_tail(12) for child in self.children if child]
            return "\n---\n".join([str(self.frames[-5:]), *logs])

        wait_until(condition, seen, timeout_s, receive)

    def beats_from(self, number: int) -> list[wire.Heartbeat]:
        return [f for n, f in self.frames if n == number and isinstance(f, wire.Heartbeat)]

    def wait_serving(self, numbers: list[int]) -> None:
        self.frames.clear()
        self.until(lambda: all(self.beats_from(number) for number in numbers), timeout_s=90)

    def of(self, kind: type, job: StageJob) -> list[tuple[int, Any]]:
        return [(n, f) for n, f in self.frames if isinstance(f, kind) and f.job == job.job_id]

    def tokens(self, jobs: list[StageJob]) -> list[int]:
        return [f.token_id for _, f in self.of(wire.Token, jobs[0])]

    def jobs(self, *, max_tokens: int = 20, sampling: Sampling | None = None) -> list[StageJob]:
        self.nonce += 1
        deadline = int(time.time()) + 600
        request = InferenceRequest(
            session=self.session,
            nonce=self.nonce,
            model=model_id(MODEL),
            body=bytes(32),
            max_tokens=max_tokens,
            tier=0,
            max_cost=10**24,
            acked_below=1,
            spent=0,
            deadline=deadline,
        )
        signature = sign(request, self.domain, self.session_key)
        ring = new_ring(self.peer(self.gateway), [self.peer(member) for member in self.members], 0)
        jobs = []
        for stage, (member, (first, end)) in enumerate(zip(self.members, CUTS, strict=True)):
            terms = self.chain.nodes.offer(member.operator.address, model_id(MODEL), 0)
            assignment = Assignment(
                request=digest(request, self.domain),
                stage=stage,
                first_layer=first,
                end_layer=end,
                numeric_profile=0,
                shard=self.published.manifest.shard_root(first, end),
                node=member.operator.address,
                prompt_price=terms.prompt_price,
                output_price=terms.output_price,
                attempt=0,
                deadline=deadline,
            )
            last = stage == len(CUTS) - 1
            jobs.append(
                StageJob(
                    chain_id=self.domain.chain_id,
                    ledger=self.domain.ledger,
                    request=request,
                    request_signature=signature,
                    assignment=assignment,
                    assignment_signature=sign(assignment, self.domain, self.gateway.signer),
                    model_name=MODEL,
                    manifest_cid=self.published.cid,
                    num_stages=len(CUTS),
                    attempt=0,
                    gateway=self.peer(self.gateway),
                    ring=ring.view(stage),
                    num_prompt_tokens=len(PROMPT),
                    max_tokens=max_tokens,
                    options=GenerationOptions(sampling=sampling or GREEDY) if last else None,
                )
            )
        return jobs

    def dispatch(self, jobs: list[StageJob]) -> None:
        for job in jobs:
            item = tasks.task_message(seal(job, self.gateway.signer), "9b2e8a5c-7a39-4d33-a3a4-5c4e0c6f9d10")
            self.admin.lpush(tasks.queue_key(job.assignment.node), item)

    def run_to_prompt(self, jobs: list[StageJob]) -> None:
        self.dispatch(jobs)
        self.until(lambda: self.of(wire.Ready, jobs[0]))
        prompt = struct.pack(f"<{len(PROMPT)}I", *PROMPT)
        self.links.send(self.peer(self.members[0]), wire.Prompt(jobs[0].job_id, len(PROMPT), prompt))

    def check_receipts(self, jobs: list[StageJob], tokens: list[int], sampling: Sampling | None = None) -> None:
        self.until(lambda: {n for n, _ in self.of(wire.Receipt, jobs[0])} == {0, 1, 2})
        found = {n: SignedReceipt.from_frame(f) for n, f in self.of(wire.Receipt, jobs[0])}
        for member in self.members:
            word = acceptance_of(found[self.members.index(member)].receipt, self.domain)
            ack = wire.ReceiptAck(jobs[0].job_id, sign(word, self.domain, self.gateway.signer))
            self.links.send(self.peer(member), ack)
        signers = {m.operator.address: m.signer.address for m in self.members}
        plan = SignedPlan(self.domain, jobs[0].request, [j.assignment for j in jobs], signers, len(PROMPT))
        transcript = Transcript(PROMPT, tokens, sampling or GREEDY)
        assert verify_job_receipts([found[n] for n in range(3)], plan, len(tokens), transcript, int(time.time())) == []

    def generate(self, count: int) -> list[int]:
        with torch.inference_mode():
            ids = self.model.generate(
                torch.tensor([PROMPT]), max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0
            )
        return [int(i) for i in ids[0, len(PROMPT) :]]

    def status(self, number: int) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads((self.layout.node(number) / "status.json").read_text())
        return fields

    def close(self) -> None:
        for child in self.children:
            if child is not None:
                child.stop()
        self.links.close()
        self.http.shutdown()
        self.http.server_close()
        self.chain_child.stop()
        self.admin.close()


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, chain_kind: ChainKind
) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"), redis_server, chain_kind)
    try:
        for number in range(len(CUTS)):
            made.start_node(number)
        made.wait_serving([0, 1, 2])
        yield made
    finally:
        made.close()


def test_three_nodes_answer_as_the_whole_model_and_their_receipts_verify(world: World) -> None:
    jobs = world.jobs(max_tokens=40)
    world.run_to_prompt(jobs)
    world.until(lambda: world.of(wire.Finish, jobs[0]))
    expected = world.generate(40)
    assert world.tokens(jobs) == expected
    world.check_receipts(jobs, expected)


def test_the_same_seed_gives_the_same_tokens(world: World) -> None:
    sampling = Sampling(temperature=0.9, top_p=0.95, seed=2**63 + 5)
    runs = []
    for _ in range(2):
        jobs = world.jobs(max_tokens=24, sampling=sampling)
        world.run_to_prompt(jobs)
        world.until(lambda jobs=jobs: world.of(wire.Finish, jobs[0]))
        runs.append(world.tokens(jobs))
        world.check_receipts(jobs, runs[-1], sampling)
    assert runs[0] == runs[1]


def test_cancel_stops_all_stages_and_only_what_was_made_is_signed(world: World) -> None:
    jobs = world.jobs(max_tokens=3000)
    world.run_to_prompt(jobs)
    world.until(lambda: len(world.tokens(jobs)) >= 10)
    world.links.send(world.peer(world.members[2]), wire.Cancel(jobs[0].job_id))
    world.until(lambda: world.of(wire.Finish, jobs[0]))
    finish = world.of(wire.Finish, jobs[0])[0][1]
    tokens = world.tokens(jobs)
    assert finish == wire.Finish(jobs[0].job_id, "cancelled", len(tokens))
    assert len(tokens) < 3000
    world.check_receipts(jobs, tokens)
    world.until(lambda: all(world.status(n)["engine_thread"]["num_jobs"] == 0 for n in range(3)))


def test_replays_and_garbage_in_queues_and_links_leave_a_running_job_alone(world: World) -> None:
    jobs = world.jobs(max_tokens=300)
    world.run_to_prompt(jobs)
    for _ in range(20):
        world.dispatch(jobs)
        for member in world.members:
            key = tasks.queue_key(member.operator.address)
            world.admin.lpush(key, os.urandom(60), b"{}", b"[" * 5000, b"null")
            raw = world.links._link_to(world.peer(member)).socket
            for parts in ([os.urandom(30), os.urandom(30)], [b"\xc1", b""], [b"", b"", b""]):
                raw.send_multipart(parts)
            world.links.send(world.peer(member), wire.Token(jobs[0].job_id, 0, 0, 0))
    world.until(lambda: world.of(wire.Finish, jobs[0]))
    tokens = world.tokens(jobs)
    assert tokens == world.generate(300)
    world.check_receipts(jobs, tokens)
    assert world.of(wire.Failed, jobs[0]) == []
    for number in range(3):
        world.until(lambda number=number: world.status(number)["engine_thread"]["dropped"]["malformed"] > 0)


def test_a_restarted_redis_is_found_again(world: World) -> None:
    world.redis_server.restart()
    world.admin.connection_pool.disconnect()
    jobs = world.jobs(max_tokens=5)
    world.run_to_prompt(jobs)
    world.until(lambda: world.of(wire.Finish, jobs[0]))
    world.check_receipts(jobs, world.tokens(jobs))


def processes_of(child: Child) -> list[psutil.Process]:
    parent = psutil.Process(child.pid)
    return [parent, *parent.children(recursive=True)]


def test_killing_the_middle_node_ends_its_job_everywhere_and_it_comes_back(world: World) -> None:
    jobs = world.jobs(max_tokens=3000)
    world.run_to_prompt(jobs)
    world.until(lambda: len(world.tokens(jobs)) >= 5)
    child = world.children[1]
    assert child is not None
    whole = processes_of(child)
    assert len(whole) >= 2
    os.kill(child.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(whole[1:], timeout=10)
    assert alive == []
    child.popen.wait()
    world.until(lambda: {n for n, _ in world.of(wire.Failed, jobs[0])} >= {0, 2})
    assert {f.code for _, f in world.of(wire.Failed, jobs[0])} == {"peer_lost"}
    world.until(lambda: all(world.status(n)["engine_thread"]["num_jobs"] == 0 for n in (0, 2)))
    world.start_node(1)
    world.wait_serving([0, 1, 2])
    again = world.jobs(max_tokens=5)
    world.run_to_prompt(again)
    world.until(lambda: world.of(wire.Finish, again[0]))
    world.check_receipts(again, world.generate(5))


def test_a_child_that_dies_is_started_again(world: World) -> None:
    child = world.children[0]
    assert child is not None
    serving = processes_of(child)[1]
    serving.kill()
    serving.wait(10)
    # Its last heartbeats may still be on their way: only a new process counts, and what it sends.
    world.until(lambda: any(process.pid != serving.pid for process in processes_of(child)[1:]))
    world.wait_serving([0])
    assert child.alive


def test_sigterm_lets_the_running_job_finish(world: World) -> None:
    jobs = world.jobs(max_tokens=200)
    world.run_to_prompt(jobs)
    child = world.children[2]
    assert child is not None
    child.popen.send_signal(signal.SIGTERM)
    world.until(lambda: world.of(wire.Finish, jobs[0]))
    tokens = world.tokens(jobs)
    assert len(tokens) == 200
    world.check_receipts(jobs, tokens)
    world.until(lambda: child.popen.poll() is not None)
    assert child.popen.returncode == 0
    assert world.status(2)["state"] == "stopped"


def settings_of(world: World, number: int, **changes: object) -> NodeSettings:
    values = {
        "rpc_url": world.rpc_url,
        "deployment": world.layout.deployment_file,
        "gateway": world.gateway.operator.address,
        "model": MODEL,
        "signer_keystore": world.layout.keystore(f"node-{number}-signer"),
        "password_file": world.layout.password_file,
        "link_key": world.layout.link_key(f"node-{number}"),
        "data_dir": world.folder / "unused",
    }
    return NodeSettings(**(values | changes))  # type: ignore[arg-type]


def test_a_node_finds_itself_and_its_gateway_on_chain(world: World) -> None:
    identity = open_identity(settings_of(world, 1))
    assert identity.operator == world.members[1].operator.address
    assert (identity.offer.first_layer, identity.offer.end_layer, identity.profile) == (2, 3, "fp32")
    assert identity.gateway_url == world.gateway.url
    by_url = open_identity(settings_of(world, 1, gateway=None, gateway_url=world.gateway.url))
    assert by_url.gateway == world.gateway.operator.address
    assert identity.account.key.hex() not in repr(identity)


def test_settings_that_do_not_fit_the_chain_are_told_apart_from_a_chain_out_of_reach(world: World) -> None:
    layout = world.layout
    for changes in (
        {"signer_keystore": layout.keystore("node-0-signer"), "operator": world.members[1].operator.address},
        {"signer_keystore": layout.keystore("requester")},
        {"signer_keystore": layout.folder / "nothing.json"},
        {"password_file": layout.keystore("node-1-signer")},
        {"link_key": layout.link_key("node-0")},
        {"model": "tests/unknown"},
        {"gateway": world.members[0].operator.address},
        {"deployment": layout.folder / "nothing.json"},
    ):
        with pytest.raises(NodeStartError):
            open_identity(settings_of(world, 1, **changes))
    with pytest.raises(WorkerError) as unreachable:
        open_identity(settings_of(world, 1, rpc_url="http://127.0.0.1:1"))
    assert not isinstance(unreachable.value, NodeStartError)
    with pytest.raises(ValidationError):
        settings_of(world, 1, gateway=None)


def test_whichever_step_of_the_start_fails_nothing_stays_open(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def broken(node: NodeParts) -> Iterator[None]:
        raise WorkerError("broken")
        yield

    def fail_at(number: int) -> str:
        monkeypatch.setattr(runtime, "STEPS", (*STEPS[:number], broken))
        with pytest.raises(WorkerError, match="broken") as caught:
            runtime.run_node(settings, time.time())
        return explained(caught.value)

    settings = settings_of(world, 0, data_dir=tmp_path, link_bind="tcp://127.0.0.1:0", metrics_port=free_port())
    last = len(STEPS) - 1  # joining would end the account of the node that runs
    fail_at(last)  # what the process keeps is there from now on
    for number in range(last + 1):
        with leaving_nothing_open(world.rpc_url):
            assert fail_at(number) == "broken; the start failed at the step broken"
    assert json.loads(settings.status_file.read_text())["state"] == "stopped"


def test_the_registry_knows_who_is_who(world: World) -> None:
    registry = ChainPeerRegistry(world.chain)
    gateway, node = world.gateway, world.members[0]
    for _ in range(2):
        assert registry.gateway_of(gateway.signer.address) == gateway.operator.address
        assert registry.gateway_of(node.signer.address) is None
        assert registry.gateway_of(new_account().address) is None
        assert registry.holder_of(node.link_key) == node.operator.address
        assert registry.holder_of(gateway.link_key) == gateway.operator.address
        assert registry.holder_of(bytes(31) + b"\1") is None
        assert registry.holder_at(node.link_key, node.endpoint) == node.operator.address
        assert registry.holder_at(node.link_key, "tcp://127.0.0.1:9") is None
        assert registry.session_key(world.session, gateway.operator.address) == world.session_key.address
        assert registry.session_key(world.session, node.operator.address) is None
        assert registry.session_key(bytes(32), gateway.operator.address) is None
    nowhere = ChainPeerRegistry(Chain("http://127.0.0.1:1", world.chain.deployment))
    assert nowhere.gateway_of(gateway.signer.address) is None


def test_joining_trusts_only_the_registered_gateway(world: World) -> None:
    identity = open_identity(settings_of(world, 1))
    registry = ChainPeerRegistry(world.chain)
    chain_id, operator, account = world.domain.chain_id, identity.operator, identity.account

    def membership(url: str, gateway: str) -> Membership:
        return Membership(url, gateway, chain_id, operator, account, registry)

    answers: list[tuple[int, bytes]] = []

    class Impostor(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, body = answers[-1]
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Impostor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, gateway = f"http://127.0.0.1:{server.server_address[1]}", world.gateway.operator.address
    good = {
        "redis_url": "redis://127.0.0.1:6379/0",
        "username": tasks.username(operator),
        "password": "x",
        "key_prefix": tasks.key_prefix(operator),
        "gateway": world.peer(world.gateway).model_dump(mode="json"),
        "heartbeat_s": 2,
    }
    stolen = good["gateway"] | {"link_key": "0x" + "01" * 32}
    other = tasks.key_prefix(world.members[0].operator.address)
    for fields in (
        {},
        {"key_prefix": other},
        {"gateway": stolen},
        {"heartbeat_s": 0},
        {"redis_url": "redis://a:b@c/0"},
    ):
        answers.append((200, json.dumps(good | fields if fields else {}).encode()))
        with pytest.raises(BrokerError):
            membership(url, gateway).join()
    for status, body in ((200, b"[" * 10_000), (200, b" " * 20_000), (403, b"no"), (302, b"")):
        answers.append((status, body))
        with pytest.raises(BrokerError):
            membership(url, gateway).join()
    answers.append((200, json.dumps(good).encode()))
    assert membership(url, gateway).join().gateway == world.peer(world.gateway)
    with pytest.raises(BrokerError):
        membership(url, world.members[0].operator.address).join()
    with pytest.raises(BrokerError):
        membership("http://127.0.0.1:1", gateway).join()
    server.shutdown()
    server.server_close()


def test_any_part_of_the_layers_held_can_be_served(world: World, tmp_path: Path) -> None:
    limits = EngineLimits(max_sequences=2, max_context_tokens=100, max_cache_bytes=2**24, prefill_chunk_tokens=4)
    manifest = world.published.manifest
    stages = ModelStages(
        manifest, 0, 5, "fp32", limits, blocks=world.blocks, fetch=None, folder=tmp_path, kept_rows=KeptRows(2**20)
    )
    (first, one), (second, two) = stages.get(0, 3), stages.get(3, 5)
    assert stages.get(0, 3)[0] is first
    assert (one.shard_root, two.shard_root) == (manifest.shard_root(0, 3), manifest.shard_root(3, 5))
    assert stages.measure_s_per_token_layer(3, 5) > 0
    first.add(b"s", SequenceSpec(len(PROMPT), 6))
    second.add(b"s", SequenceSpec(len(PROMPT), 6, GenerationOptions(sampling=GREEDY)))
    fed, tokens = PROMPT, []
    while len(tokens) < 6:
        first.feed(b"s", len(PROMPT) + len(tokens) - 1 if tokens else 0, fed)
        while first.has_work:
            [rows] = first.step()
            second.feed(b"s", rows.first_position, rows.rows.tobytes())  # type: ignore[union-attr]
        made = [output for _ in range(9) for output in second.step()]
        tokens.append(made[0].token_id)  # type: ignore[union-attr]
        fed = tokens[-1:]
    assert tokens == world.generate(6)
    for cut in ((1, 2), (2, 3)):
        stages.get(*cut)
    with pytest.raises(NotLoaded):
        stages.get(1, 3)


def test_no_secret_is_in_any_log(world: World) -> None:
    password = world.layout.password_file.read_text().strip()
    keys = [open_keystore(world.layout.keystore(f"node-{n}-signer"), password).key.hex() for n in range(3)]
    links = [world.layout.link_key(f"node-{n}").read_text().split()[1] for n in range(3)]
    for path in (world.folder / "logs").glob("node-*.log"):
        text = path.read_text()
        assert "serving" in text
        assert not [secret for secret in [password, *keys, *links] if secret.removeprefix("0x") in text]
        assert all(json.loads(line)["level"] for line in text.splitlines() if line.startswith("{"))
