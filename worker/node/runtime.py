"""Everything a serving node is made of, opened in order and closed together."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import torch

from declai.chain.contracts.models import model_id
from declai.ipfs.errors import FetchFailed, IpfsError
from declai.ipfs.exchange import Exchange
from declai.ipfs.manifest import Manifest
from declai.ipfs.store import BlockStore
from declai.links.node_links import NodeLinks
from declai.protocol.joining import JoinAnswer
from declai.protocol.peers import RELAY
from declai.worker.engine import EngineLimits
from declai.worker.errors import BrokerError, NodeStartError, WorkerError
from declai.worker.job.engine_thread import EngineThread, JobTimeouts
from declai.worker.job.served_layers import ServedLayers
from declai.worker.job.store import NodeStore
from declai.worker.model.devices import open_device
from declai.worker.node.identity import Identity, open_identity
from declai.worker.node.membership import Membership
from declai.worker.node.metrics import NodeMetrics, serve_metrics
from declai.worker.node.settings import NodeSettings
from declai.worker.node.stages import ModelStages
from declai.worker.node.status import StatusFile
from declai.worker.tasks.app import build_app, consume
from declai.worker.tasks.envelopes import Terms
from declai.worker.tasks.registry import ChainPeerRegistry
from declai.worker.tasks.service import StageService
from declai.worker.tasks.transport import BrokerAccount

log = logging.getLogger(__name__)

# Above the engine's sessions, so that a job too many is refused at once instead of waiting for a thread.
SPARE_TASK_THREADS = 4
AGAIN_S = 0.5
RECEIPTS_LEAVE_S = 5.0


def run_node(settings: NodeSettings) -> None:
    """Serve until SIGTERM; running jobs are finished first. To be called from the main thread.

    Raises:
        NodeStartError: the node cannot start with these settings; the text says what to do.
        ChainError, LinkError, WorkerError: something that another start may mend, as an address that is taken.
    """
    torch.set_num_threads(settings.model_threads())
    device = open_device(settings.device)
    identity = open_identity(settings)
    with ExitStack() as opened:
        status = opened.enter_context(StatusFile(settings.status_file, _description(settings, identity)))
        stages = _load_stages(settings, identity, device)
        speed = stages.measure_s_per_token_layer(identity.offer.first_layer, identity.offer.end_layer)
        store = NodeStore(settings.data_dir / "node.db")
        opened.callback(store.close)
        writer = opened.enter_context(ThreadPoolExecutor(1, "acceptances"))
        registry = ChainPeerRegistry(identity.chain)

        def acknowledged(job_id: bytes, acceptance: bytes) -> None:
            writer.submit(service.keep_acceptance, job_id, acceptance)

        bind = None if identity.node.endpoint == RELAY else settings.link_bind
        links = NodeLinks(identity.link_keys, bind, lambda key: registry.holder_of(key) is not None)
        pipeline = EngineThread(
            links,
            _served(settings, identity, stages.manifest),
            options=JobTimeouts(settings.idle_timeout_s, settings.peer_grace_s, settings.heartbeat_s),
            seconds_per_token_layer=speed,
            on_acknowledged=acknowledged,
        )
        if settings.metrics_port:
            opened.enter_context(serve_metrics(NodeMetrics(stages.engines, pipeline), settings.metrics_port))
        pipeline.start()
        opened.callback(pipeline.stop)
        terms = _terms(settings, identity, stages)
        service = StageService(terms, registry, store, pipeline, stages, identity.account)
        membership = Membership(
            identity.gateway_url,
            identity.gateway,
            identity.chain.deployment.chain_id,
            identity.operator,
            identity.account,
            registry,
        )
        answer = _join(membership)
        account = BrokerAccount(answer.username, answer.password.get_secret_value(), membership.rejoin)
        app = build_app(answer.redis_url, answer.key_prefix, account, service.run_stage)
        opened.callback(status.follow_nothing)

        def ready() -> None:
            log.info("serving %s layers [%d, %d)", settings.model, terms.first_layer, terms.end_layer)
            status.follow(pipeline, store)
            pipeline.beat_to([answer.gateway])
            service.send_waiting_receipts()

        num_threads = settings.max_jobs + SPARE_TASK_THREADS
        consume(app, num_threads, on_ready=ready, on_shutdown=pipeline.drain)
        _let_receipts_leave(pipeline)


def _description(settings: NodeSettings, identity: Identity) -> dict[str, object]:
    return {
        "address": identity.operator,
        "model": settings.model,
        "layers": [identity.offer.first_layer, identity.offer.end_layer],
        "profile": identity.profile,
        "endpoint": identity.node.endpoint,
        "gateway": identity.gateway,
    }


def _load_stages(settings: NodeSettings, identity: Identity, device: torch.device) -> ModelStages:
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


def _let_receipts_leave(pipeline: EngineThread) -> None:
    deadline = time.monotonic() + RECEIPTS_LEAVE_S
    while pipeline.status().num_receipts_waiting and time.monotonic() < deadline:
        time.sleep(0.05)
