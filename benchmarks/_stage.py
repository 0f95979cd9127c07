"""One stage as a process of its own: a real engine, links, engine thread and service; envelopes come through a pipe.

What a node does, without chain, Redis and Celery: the parent is its gateway and its registry's only source.
"""

import contextlib
import logging
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from eth_account import Account
from eth_utils.crypto import keccak

from declai.protocol.jobs import Envelope
from tests.support.parties import DOMAIN, MANIFEST, MODEL_NAME, OUTPUT_PRICE, PROMPT_PRICE, Party


@dataclass(frozen=True)
class ToldRegistry:
    """What the parent tells of the ring's parties, in plain values that travel to another process.

    It believes every endpoint of a known key: a stage starts before the others listen anywhere.
    """

    gateways: dict[str, str]
    holders: dict[bytes, str]
    session: str | None

    def gateway_of(self, signer: str) -> str | None:
        return self.gateways.get(signer)

    def holder_of(self, link_key: bytes) -> str | None:
        return self.holders.get(link_key)

    def holder_at(self, link_key: bytes, endpoint: str) -> str | None:
        return self.holder_of(link_key)

    def session_key(self, session: bytes, gateway: str) -> str | None:
        return self.session


@dataclass(frozen=True)
class StagePlan:
    """What a stage process is told at its start. `limits` are the engine's, by name."""

    folder: Path
    first_layer: int
    end_layer: int
    num_layers: int
    profile: str
    device: str
    num_threads: int
    limits: dict[str, int]
    operator_key: bytes
    signer_key: bytes
    link: tuple[bytes, bytes]
    registry: ToldRegistry

    @property
    def party(self) -> Party:
        return Party(Account.from_key(self.operator_key), Account.from_key(self.signer_key), self.link)


def run_stage(plan: StagePlan, parent: Connection) -> None:
    """Tell the parent where the link listens, then run every envelope that it sends, until it is gone."""
    try:
        _run(plan, parent)
    except (EOFError, KeyboardInterrupt):
        pass  # the parent is gone, or wants no more
    except Exception:
        logging.exception("a stage process failed")
    finally:
        os._exit(0)  # tasks that still wait for their jobs would keep the process


def _run(plan: StagePlan, parent: Connection) -> None:
    import torch

    from declai.links.keys import LinkKeyPair
    from declai.links.node_links import NodeLinks
    from declai.protocol.errors import InvalidGrammar
    from declai.protocol.grammar import Constraint
    from declai.protocol.options import Grammar
    from declai.worker.engine import Engine, EngineLimits
    from declai.worker.job.engine_thread import EngineThread
    from declai.worker.job.served_layers import ServedLayers
    from declai.worker.job.stage_engine import StageEngine, StageIdentity
    from declai.worker.job.store import NodeStore
    from declai.worker.model.architecture import inspect_architecture
    from declai.worker.model.stage import Stage
    from declai.worker.node.stages import LINK_DTYPE
    from declai.worker.tasks.envelopes import Terms
    from declai.worker.tasks.service import StageService

    torch.set_num_threads(plan.num_threads)
    files = [plan.folder / "model.safetensors"]
    layers = plan.first_layer, plan.end_layer
    architecture = inspect_architecture(plan.folder)
    stage = Stage.load(architecture, *layers, files, plan.profile, plan.device)
    stage.measure_s_per_token()
    engine = Engine(stage, EngineLimits(**plan.limits))

    class Engines:
        def get(self, first_layer: int, end_layer: int) -> tuple[StageEngine, StageIdentity]:
            return engine, StageIdentity(plan.profile, LINK_DTYPE, bytes(32))

        def constraint(self, grammar: Grammar) -> Constraint:
            raise InvalidGrammar("benchmarks ask for none")

    def acknowledged(job: bytes, acceptance: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the parent is gone, and the writer with it
            writer.submit(service.keep_acceptance, job, acceptance)

    party, model, capacity = plan.party, keccak(text=MODEL_NAME), plan.limits["max_sequences"]
    links = NodeLinks(
        LinkKeyPair(*plan.link), "tcp://127.0.0.1:0", lambda key: plan.registry.holder_of(key) is not None
    )
    engine_thread = EngineThread(
        links,
        ServedLayers(model, MANIFEST, *layers, capacity),
        on_acknowledged=acknowledged,
    )
    terms = Terms(
        node=party.address,
        link_key=plan.link[0],
        domain=DOMAIN,
        model=model,
        model_name=MODEL_NAME,
        manifest_cid=MANIFEST,
        num_layers=plan.num_layers,
        first_layer=plan.first_layer,
        end_layer=plan.end_layer,
        prompt_price=PROMPT_PRICE,
        output_price=OUTPUT_PRICE,
        max_positions=plan.limits["max_context_tokens"],
    )
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as writer:
        store = NodeStore(Path(scratch) / "node.db")
        service = StageService(terms, plan.registry, store, engine_thread, Engines(), party.signer)
        engine_thread.start()
        tasks = ThreadPoolExecutor(capacity + 4)
        parent.send(links.endpoint)
        while True:
            tasks.submit(service.run_stage, Envelope.model_validate_json(parent.recv()))
