"""The steps of a node's start, in order; each closes what it opened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager

import torch
from celery import Celery

from declai.chain.contracts.models import model_id
from declai.ipfs.errors import FetchFailed, IpfsError
from declai.ipfs.exchange import Exchange
from declai.ipfs.manifest import Manifest
from declai.ipfs.store import BlockStore
from declai.links.node_links import NodeLinks
from declai.protocol.jobs import StageJob
from declai.protocol.joining import JoinAnswer
from declai.protocol.peers import RELAY
from declai.protocol.ring import Replacement
from declai.protocol.wire import Replaced
from declai.worker.engine import EngineLimits
from declai.worker.engine.memory.kept_rows import KeptRows
from declai.worker.errors import BrokerError, NodeStartError, StoreTooNew, StoreTooOld, WorkerError
from declai.worker.job.engine_thread import EngineThread, JobTimeouts
from declai.worker.job.served_layers import ServedLayers
from declai.worker.job.store import NodeStore
from declai.worker.model.devices import open_device
from declai.worker.node.identity import Identity, open_identity
from declai.worker.node.living import OLDER_NODE_RUNS
from declai.worker.node.membership import Membership
from declai.worker.node.metrics import NodeMetrics, serve_metrics
from declai.worker.node.settings import NodeSettings
from declai.worker.node.stages import ModelStages
from declai.worker.node.status import StatusFile
from declai.worker.tasks.app import build_app
from declai.worker.tasks.changes import PendingChanges
from declai.worker.tasks.envelopes import Terms
from declai.worker.tasks.registry import ChainPeerRegistry
from declai.worker.tasks.service import StageService
from declai.worker.tasks.transport import BrokerAccount

log = logging.getLogger(__name__)

AGAIN_S = 0.5


class NodeParts:
    """What a serving node consists of; each step adds its own.

    Attributes:
        s_per_token_layer: seconds of a decode forward, measured while the engine is idle.
        words: takes the acceptances of receipts, for the engine thread must not wait for a disk or the chain.
        changes: takes what gateways say of running jobs, for acceptances must not wait for that.
        joined: the gateway's answer, with the account at its broker.
        tasks: consumes the node's queue.
    """

    device: torch.device
    identity: Identity
    status: StatusFile
    stages: ModelStages
    s_per_token_layer: float
    store: NodeStore
    words: ThreadPoolExecutor
    changes: PendingChanges
    registry: ChainPeerRegistry
    engine_thread: EngineThread
    service: StageService
    joined: JoinAnswer
    tasks: Celery

    def __init__(self, settings: NodeSettings, supervised_since: float) -> None:
        """`supervised_since`: Unix seconds."""
        self.settings = settings
        self.supervised_since = supervised_since

    @property
    def layers(self) -> tuple[int, int]:
        """[first, end) of those offered."""
        return self.identity.offer.first_layer, self.identity.offer.end_layer

    def acknowledged(self, job_id: bytes, acceptance: bytes) -> None:
        """A gateway has this job's receipt. Nothing is sent, and so nothing acknowledged, before `service` is there."""
        self.words.submit(self.service.keep_acceptance, job_id, acceptance)

    def check_change(self, job: StageJob, change: Replacement, frame: Replaced) -> None:
        """A gateway says that another node stands beside this one in a job."""
        self.service.take_replacement(job, change, frame)


@contextmanager
def _device(node: NodeParts) -> Iterator[None]:
    torch.set_num_threads(node.settings.model_threads())
    node.device = open_device(node.settings.device)
    yield


@contextmanager
def _identity(node: NodeParts) -> Iterator[None]:
    """Who the node is, by its keys and the chain."""
    node.identity = open_identity(node.settings)
    node.registry = ChainPeerRegistry(node.identity.chain)
    yield


@contextmanager
def _status_file(node: NodeParts) -> Iterator[None]:
    description = _description(node.settings, node.identity)
    with StatusFile(node.settings.status_file, description, node.supervised_since) as node.status:
        yield


@contextmanager
def _store(node: NodeParts) -> Iterator[None]:
    """Receipts until their gateway has them, and who takes what gateways say.

    Before the layers: a store that cannot be used is found out in no time.
    """
    try:
        store = NodeStore(node.settings.data_dir / "node.db", may_migrate=node.status.another is None)
    except StoreTooNew as error:
        raise NodeStartError(str(error)) from error
    except StoreTooOld as error:
        raise NodeStartError(f"{error}: {OLDER_NODE_RUNS}") from error
    with (
        closing(store) as node.store,
        ThreadPoolExecutor(1, "words") as node.words,
        closing(PendingChanges(node.check_change)) as node.changes,
    ):
        yield


@contextmanager
def _layers(node: NodeParts) -> Iterator[None]:
    """The model's layers on the device, pulled where they are missing, and their speed."""
    settings = node.settings
    folder = settings.data_dir / "kept-rows"
    try:
        rows = KeptRows(settings.kept_rows_bytes, folder, settings.kept_rows_disk_bytes)
    except OSError as error:
        raise NodeStartError(
            f"cannot use {folder}: {error.strerror}: give this user the right to, or set another data_dir"
        ) from error
    with closing(rows) as kept_rows:
        node.stages = _load_stages(settings, node.identity, node.device, kept_rows)
        node.s_per_token_layer = node.stages.measure_s_per_token_layer(*node.layers)
        yield


@contextmanager
def _engine_thread(node: NodeParts) -> Iterator[None]:
    """The links to other nodes and to the gateway, and the thread that owns them and the engines."""
    settings, identity, registry = node.settings, node.identity, node.registry
    bind = None if identity.node.endpoint == RELAY else settings.link_bind
    links = NodeLinks(identity.link_keys, bind, lambda key: registry.holder_of(key) is not None)
    node.engine_thread = EngineThread(
        links,
        _served(settings, identity, node.stages.manifest),
        options=JobTimeouts(settings.idle_timeout_s, settings.peer_grace_s),
        seconds_per_token_layer=node.s_per_token_layer,
        on_acknowledged=node.acknowledged,
        on_replaced=node.changes.put,
    )
    node.engine_thread.start()  # from here on the links are the thread's, which closes them
    try:
        yield
    finally:
        node.engine_thread.stop()


@contextmanager
def _metrics(node: NodeParts) -> Iterator[None]:
    if not node.settings.metrics_port:
        yield
        return
    with serve_metrics(NodeMetrics(node.stages.engines, node.engine_thread), node.settings.metrics_port):
        yield


@contextmanager
def _membership(node: NodeParts) -> Iterator[None]:
    """An account at the gateway's broker, and what is done with the tasks that come from there."""
    identity = node.identity
    terms = _terms(node.settings, identity, node.stages)
    node.service = StageService(terms, node.registry, node.store, node.engine_thread, node.stages, identity.account)
    membership = Membership(
        identity.gateway_url,
        identity.gateway,
        identity.chain.deployment.chain_id,
        identity.operator,
        identity.account,
        node.registry,
    )
    node.joined = _join(membership)
    node.engine_thread.beat_every(node.joined.heartbeat_s)

    def rejoin() -> tuple[str, str]:
        again = membership.join()
        node.engine_thread.beat_every(again.heartbeat_s)
        return again.username, again.password.get_secret_value()

    account = BrokerAccount(node.joined.username, node.joined.password.get_secret_value(), rejoin)
    node.tasks = build_app(node.joined.redis_url, node.joined.key_prefix, account, node.service.run_stage)
    yield


STEPS: tuple[Callable[[NodeParts], AbstractContextManager[None]], ...] = (
    _device,
    _identity,
    _status_file,
    _store,
    _layers,
    _engine_thread,
    _metrics,
    _membership,
)


def _description(settings: NodeSettings, identity: Identity) -> dict[str, object]:
    return {
        "address": identity.operator,
        "model": settings.model,
        "layers": [identity.offer.first_layer, identity.offer.end_layer],
        "profile": identity.profile,
        "endpoint": identity.node.endpoint,
        "gateway": identity.gateway,
    }


def _load_stages(settings: NodeSettings, identity: Identity, device: torch.device, kept_rows: KeptRows) -> ModelStages:
    """Pull what is missing of the offered layers and load them."""
    offer, cid = identity.offer, identity.version.manifest_cid
    blocks = BlockStore(settings.data_dir / "blocks")
    exchange = Exchange(blocks, [identity.gateway_url, *settings.ipfs_peers])
    limits = EngineLimits(
        max_sequences=settings.max_jobs,
        max_context_tokens=settings.max_context_tokens,
        max_cache_bytes=settings.max_cache_bytes,
        prefill_chunk_tokens=settings.prefill_chunk_tokens,
        mixed_prefill_tokens=settings.mixed_prefill_tokens,
        prefix_reuse=settings.prefix_reuse,
        cuda_graphs=settings.cuda_graphs,
    )
    try:
        _fetch_when_possible(exchange, cid)
        manifest = Manifest.load(cid, blocks)
        log.info("pulling layers [%d, %d) of %s", offer.first_layer, offer.end_layer, manifest.name)
        return ModelStages(
            manifest,
            offer.first_layer,
            offer.end_layer,
            identity.profile,
            limits,
            blocks=blocks,
            fetch=exchange.fetch,
            folder=settings.data_dir / "models" / cid,
            kept_rows=kept_rows,
            device=device,
        )
    except IpfsError as error:
        raise WorkerError(f"the model's shards: {error}") from error
    except ValueError as error:
        raise NodeStartError(str(error)) from error
    finally:
        exchange.close()


def _fetch_when_possible(exchange: Exchange, cid: str) -> None:
    """Fetch, for as long as it takes until a peer has it: a node may start before those that hold its model."""
    while True:
        try:
            return exchange.fetch(cid)
        except FetchFailed as error:
            log.warning("cannot fetch the model's manifest yet: %s", error)
            time.sleep(AGAIN_S)


def _served(settings: NodeSettings, identity: Identity, manifest: Manifest) -> ServedLayers:
    offer = identity.offer
    cid = identity.version.manifest_cid
    layers = offer.first_layer, offer.end_layer
    return ServedLayers(model_id(manifest.name), cid, *layers, settings.max_jobs, offer.numeric_profile)


def _terms(settings: NodeSettings, identity: Identity, stages: ModelStages) -> Terms:
    offer, manifest = identity.offer, stages.manifest
    return Terms(
        node=identity.operator,
        link_key=identity.link_keys.public,
        domain=identity.chain.domain,
        model=model_id(settings.model),
        model_name=settings.model,
        manifest_cid=identity.version.manifest_cid,
        num_layers=manifest.num_layers,
        first_layer=offer.first_layer,
        end_layer=offer.end_layer,
        prompt_price=offer.prompt_price,
        output_price=offer.output_price,
        max_positions=min(settings.max_context_tokens, manifest.context_length),
    )


def _join(membership: Membership) -> JoinAnswer:
    """Join, for as long as it takes: a node may start before its gateway."""
    while True:
        try:
            return membership.join()
        except BrokerError as error:
            log.warning("cannot join the gateway yet: %s", error)
            time.sleep(AGAIN_S)
