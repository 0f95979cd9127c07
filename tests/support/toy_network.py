"""A network of toy nodes on real links, and a gateway that speaks to them by hand."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from eth_utils.crypto import keccak

from declai.chain.messages import Assignment, sign
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.links.sockets import LinkOptions
from declai.protocol import wire
from declai.protocol.errors import InvalidGrammar
from declai.protocol.grammar import Constraint
from declai.protocol.jobs import Envelope, StageJob, seal
from declai.protocol.options import Grammar, Sampling
from declai.protocol.receipt_checks import SignedPlan, Transcript, verify_job_receipts
from declai.protocol.receipts import SignedReceipt, acceptance_of
from declai.protocol.ring import Replacement, Ring, seal_replacement
from declai.worker.errors import WorkerError
from declai.worker.job.engine_thread import EngineThread, JobTimeouts
from declai.worker.job.served_layers import ServedLayers
from declai.worker.job.stage_engine import StageIdentity
from declai.worker.job.store import NodeStore
from declai.worker.tasks.envelopes import Terms
from declai.worker.tasks.service import StageService
from tests.support.parties import (
    DOMAIN,
    MANIFEST,
    MODEL_NAME,
    OUTPUT_PRICE,
    PROMPT_PRICE,
    FakeRegistry,
    Party,
    layer_cuts,
    make_jobs,
)
from tests.support.toy_engine import ToyEngine
from tests.support.waiting import wait_until

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
QUICK_LINKS = LinkOptions(handshake_timeout_s=0.5, reconnect_s=0.02, linger_s=0.2)
QUICK = JobTimeouts(idle_timeout_s=20, peer_grace_s=1.0)


class ToyNode:
    """One node: its links, its engine thread, its service; a thread per task, as Celery's pool has."""

    def __init__(
        self,
        party: Party,
        registry: FakeRegistry,
        cut: tuple[int, int],
        num_layers: int,
        folder: Path,
        delay_s: float,
        row_bytes: int,
        options: LinkOptions,
    ) -> None:
        self.party = party
        links = NodeLinks(LinkKeyPair(*party.link), "tcp://127.0.0.1:0", lambda k: k in registry.holders, options)
        party.endpoint = links.endpoint
        self.engine = ToyEngine(*cut, num_layers, delay_s=delay_s, row_bytes=row_bytes)
        self.store = NodeStore(folder / f"{party.address}.db")
        model = keccak(text=MODEL_NAME)
        self.engine_thread = EngineThread(
            links,
            ServedLayers(model, MANIFEST, *cut, capacity=4),
            options=QUICK,
            on_acknowledged=lambda job, acceptance: self.service.keep_acceptance(job, acceptance),
            on_replaced=lambda job, change, frame: self.service.take_replacement(job, change, frame),
        )
        terms = Terms(
            node=party.address,
            link_key=party.link[0],
            domain=DOMAIN,
            model=model,
            model_name=MODEL_NAME,
            manifest_cid=MANIFEST,
            num_layers=num_layers,
            first_layer=cut[0],
            end_layer=cut[1],
            prompt_price=PROMPT_PRICE,
            output_price=OUTPUT_PRICE,
            max_positions=10_000,
        )
        self.service = StageService(terms, registry, self.store, self.engine_thread, self, party.signer)
        self.tasks: list[threading.Thread] = []
        self.engine_thread.beat_every(0.2)
        self.engine_thread.start()

    def get(self, first_layer: int, end_layer: int) -> tuple[ToyEngine, StageIdentity]:
        if (first_layer, end_layer) != (self.engine.first, self.engine.end):
            raise WorkerError("not these layers")
        return self.engine, StageIdentity("fp32", "float32", bytes(32))

    def constraint(self, grammar: Grammar) -> Constraint:
        raise InvalidGrammar("toys follow no grammar")

    def dispatch(self, envelope: Envelope) -> None:
        task = threading.Thread(target=self.service.run_stage, args=(envelope,), daemon=True)
        task.start()
        self.tasks.append(task)

    @property
    def idle(self) -> bool:
        return not self.engine.sequences and self.engine_thread.status().num_jobs == 0

    def stop(self) -> None:
        self.engine_thread.stop()
        for task in self.tasks:
            task.join(10)
        self.store.close()


class Network:
    """Nodes in a row, and a gateway that speaks by hand."""

    def __init__(
        self,
        folder: Path,
        num_nodes: int = 3,
        delay_s: float = 0.0,
        row_bytes: int = 16,
        options: LinkOptions = QUICK_LINKS,
    ) -> None:
        self.prompt_ids = PROMPT
        self.gateway, self.stranger = Party(), Party()
        parties = [Party() for _ in range(num_nodes)]
        self.registry = FakeRegistry([self.gateway], [*parties, self.stranger])
        cuts = layer_cuts(num_nodes)
        self.num_layers = cuts[-1][1]
        self.links = self._open(self.gateway)
        self.new_node = partial(
            ToyNode,
            registry=self.registry,
            num_layers=self.num_layers,
            folder=folder,
            delay_s=delay_s,
            row_bytes=row_bytes,
            options=options,
        )
        self.nodes = [self.new_node(party, cut=cut) for party, cut in zip(parties, cuts, strict=True)]
        self.left: list[ToyNode] = []
        self.frames: list[tuple[str, wire.Frame]] = []

    def _open(self, party: Party) -> NodeLinks:
        links = NodeLinks(
            LinkKeyPair(*party.link), "tcp://127.0.0.1:0", lambda k: k in self.registry.holders, QUICK_LINKS
        )
        party.endpoint = links.endpoint
        return links

    def stranger_links(self) -> NodeLinks:
        return self._open(self.stranger)

    def jobs(self, **options: object) -> list[StageJob]:
        parties = [node.party for node in self.nodes]
        defaults: dict[str, object] = {
            "num_prompt_tokens": len(self.prompt_ids),
            "max_tokens": 40,
            "salt": os.urandom(8),
        }
        return make_jobs(self.gateway, parties, **(defaults | options))  # type: ignore[arg-type]

    def dispatch(self, jobs: list[StageJob], order: list[int] | None = None) -> None:
        for stage in order or range(len(jobs)):
            self.nodes[stage].dispatch(seal(jobs[stage], self.gateway.signer))

    def replace(self, jobs: list[StageJob], ring: Ring, stage: int, from_position: int) -> tuple[list[StageJob], Ring]:
        """Put another node into a stage's place, and tell its neighbours; its own task is still to be dispatched.

        Returns the jobs and the ring as they are then.
        """
        party = Party()
        self.registry.add(party)
        self.left.append(self.nodes[stage])
        self.nodes[stage] = self.new_node(party, cut=(self.nodes[stage].engine.first, self.nodes[stage].engine.end))
        ring = ring.with_node(stage, 0, party.peer, from_position)
        replica = ring.stages[stage][0]
        fields = {"node": party.address, "attempt": replica.attempt}
        assignment = Assignment.model_validate(jobs[stage].assignment.model_dump() | fields)
        signature = sign(assignment, DOMAIN, self.gateway.signer)
        own = {"assignment": assignment, "assignment_signature": signature, "ring": ring.view(stage)}
        changed = list(jobs)
        changed[stage] = StageJob.model_validate(jobs[stage].model_dump() | own)
        frame = seal_replacement(Replacement(job=jobs[0].job_id, stage=stage, replica=replica), self.gateway.signer)
        for beside in {(stage - 1) % len(jobs), (stage + 1) % len(jobs)}:
            self.send(beside, frame)
        return changed, ring

    def send(self, stage: int, frame: wire.Frame) -> None:
        self.links.send(self.nodes[stage].party.peer, frame)

    def until(self, condition: Callable[[], object], timeout_s: float = 20) -> None:
        """Receive until the condition holds."""
        names = {node.party.link[0]: node.party.address for node in [*self.nodes, *self.left]}

        def receive() -> None:
            for inbound in self.links.poll(0.02):
                self.frames.append((names.get(inbound.sender, "?"), inbound.frame))

        wait_until(condition, lambda: [(who[:6], frame) for who, frame in self.frames][-5:], timeout_s, receive)

    def of(self, kind: type, job: StageJob) -> list[tuple[str, wire.Frame]]:
        return [(who, f) for who, f in self.frames if isinstance(f, kind) and f.job == job.job_id]

    def tokens(self, job: StageJob) -> list[int]:
        return [f.token_id for _, f in self.of(wire.Token, job)]  # type: ignore[union-attr]

    def finish(self, job: StageJob) -> wire.Finish | None:
        found = [f for _, f in self.of(wire.Finish, job)]
        return found[0] if found else None  # type: ignore[return-value]

    def prompt(self, job: StageJob) -> None:
        self.until(lambda: self.of(wire.Ready, job))
        self.send(
            0, wire.Prompt(job.job_id, len(self.prompt_ids), struct.pack(f"<{len(self.prompt_ids)}I", *self.prompt_ids))
        )

    def receipts(self, jobs: list[StageJob]) -> list[SignedReceipt]:
        self.until(lambda: len({who for who, _ in self.of(wire.Receipt, jobs[0])}) == len(jobs))
        by_node = {who: SignedReceipt.from_frame(f) for who, f in self.of(wire.Receipt, jobs[0])}  # type: ignore[arg-type]
        receipts = [by_node[job.assignment.node] for job in jobs]
        for stage, receipt in enumerate(receipts):
            self.send(stage, self.ack(jobs[stage], receipt, self.gateway))
        return receipts

    @staticmethod
    def ack(job: StageJob, receipt: SignedReceipt, by: Party) -> wire.ReceiptAck:
        return wire.ReceiptAck(job.job_id, sign(acceptance_of(receipt.receipt, DOMAIN), DOMAIN, by.signer))

    def check(self, jobs: list[StageJob], tokens: list[int], sampling: Sampling | None = None) -> list[SignedReceipt]:
        receipts = self.receipts(jobs)
        signers = {node.party.address: node.party.signer.address for node in self.nodes}
        from_positions = [job.ring.from_position for job in jobs]
        plan = SignedPlan(
            DOMAIN, jobs[0].request, [j.assignment for j in jobs], signers, len(self.prompt_ids), from_positions
        )
        transcript = Transcript(self.prompt_ids, tokens, sampling or Sampling())
        assert verify_job_receipts(receipts, plan, len(tokens), transcript, int(time.time())) == []
        return receipts

    def wait_idle(self) -> None:
        wait_until(lambda: all(node.idle for node in self.nodes))

    def close(self) -> None:
        for node in [*self.nodes, *self.left]:
            if node.engine_thread.is_alive():
                node.stop()
        self.links.close()
