"""Everything a serving node is made of, opened in order and closed together."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import torch
from eth_account.signers.local import LocalAccount

from chain.client import Chain, Deployment
from chain.contracts.models import model_id
from chain.contracts.nodes import Node, Offer
from chain.errors import ChainError, ChainUnreachable
from chain.keystore import open_keystore, read_password
from ipfs.errors import IpfsError
from ipfs.exchange import Exchange
from ipfs.manifest import Manifest
from ipfs.store import BlockStore
from worker.admission import Terms
from worker.broker import JoinAnswer
from worker.channel import BrokerAccount
from worker.commitments import NUMERIC_PROFILES
from worker.engine import EngineLimits
from worker.errors import BrokerError, LinkKeyError, NodeStartError, WorkerError
from worker.links import LinkKeyPair, Links
from worker.membership import Membership
from worker.pipeline import Pipeline, PipelineOptions, Served
from worker.registry import ChainRegistry
from worker.service import StageService
from worker.settings import NodeSettings
from worker.stages import ModelStages
from worker.status import StatusFile
from worker.store import NodeStore
from worker.tasks import build_app, consume

log = logging.getLogger(__name__)

# Above the engine's sessions, so that a job too many is refused at once instead of waiting for a thread.
SPARE_TASK_THREADS = 4
JOIN_AGAIN_S = 2.0
RECEIPTS_LEAVE_S = 5.0


def run_node(settings: NodeSettings) -> None:
    """Serve until SIGTERM; running jobs are finished first. To be called from the main thread.

    Raises:
        NodeStartError: the node cannot start with these settings; the text says what to do.
        WorkerError: something that another start may mend.
    """
    torch.set_num_threads(settings.model_threads())
    identity = _Identity(settings)
    with ExitStack() as opened:
        status = opened.enter_context(StatusFile(settings.status_file, _description(settings, identity)))
        stages = _load_stages(settings, identity)
        speed = _warm_up(stages, identity.offer)
        store = NodeStore(settings.data_dir / "node.db")
        opened.callback(store.close)
        writer = opened.enter_context(ThreadPoolExecutor(1, "acknowledgements"))
        registry = ChainRegistry(identity.chain)

        def acknowledged(job_id: bytes) -> None:
            writer.submit(store.acknowledge, job_id)

        links = Links(identity.link_keys, settings.link_bind, lambda key: registry.holder_of(key) is not None)
        pipeline = Pipeline(
            links,
            _served(settings, identity, stages.manifest),
            options=PipelineOptions(settings.idle_timeout_s, settings.peer_grace_s, settings.heartbeat_s),
            seconds_per_token_layer=speed,
            on_acknowledged=acknowledged,
        )
        pipeline.start()
        opened.callback(pipeline.stop)
        terms = _terms(settings, identity, stages)
        service = StageService(terms, registry, store, pipeline, stages, identity.account)
        membership = Membership(
            identity.gateway_url,
            settings.gateway,
            identity.chain.deployment.chain_id,
            settings.operator,
            identity.account,
            registry,
        )
        answer = _join(membership)
        pipeline.beat_to([answer.gateway])
        service.send_waiting_receipts()
        account = BrokerAccount(answer.username, answer.password.get_secret_value(), membership.rejoin)
        app = build_app(answer.redis_url, answer.key_prefix, account, service.run_stage)
        status.follow(pipeline, store)
        opened.callback(status.follow_nothing)
        log.info("serving %s layers [%d, %d) at %s", settings.model, terms.first_layer, terms.end_layer, links.endpoint)
        consume(app, settings.max_sessions + SPARE_TASK_THREADS, on_shutdown=pipeline.drain)
        _let_receipts_leave(pipeline)


class _Identity:
    """Who the node is, from its keys and the chain.

    Raises NodeStartError when the two do not fit, WorkerError while the chain is out of reach.
    """

    def __init__(self, settings: NodeSettings) -> None:
        try:
            self.account: LocalAccount = open_keystore(settings.signer_keystore, read_password(settings.password_file))
            self.link_keys = LinkKeyPair.load(settings.link_key)
            self.chain = Chain(settings.rpc_url, Deployment.load(settings.deployment))
            self.chain.check()
            self.node: Node = self.chain.nodes.node(settings.operator)
            self.offer: Offer = self.chain.nodes.offer(settings.operator, model_id(settings.model))
            _, self.version = self.chain.models.current(model_id(settings.model))
            self.gateway_url = settings.gateway_url or self.chain.nodes.node(settings.gateway).url
        except ChainUnreachable as error:
            raise WorkerError(str(error)) from error
        except (ChainError, LinkKeyError) as error:
            raise NodeStartError(str(error)) from error
        self._check(settings)

    @property
    def profile(self) -> str:
        """Numeric profile of the offer."""
        return next(name for name, number in NUMERIC_PROFILES.items() if number == self.offer.numeric_profile)

    def _check(self, settings: NodeSettings) -> None:
        if self.node.signer != self.account.address:
            raise NodeStartError(
                f"the registry has signer {self.node.signer} for {settings.operator}, the keystore holds "
                f"{self.account.address}: register the node, or set the signer"
            )
        if self.node.link_key != self.link_keys.public:
            raise NodeStartError(f"{settings.link_key} is not the link key in the registry: set the endpoint anew")
        if not self.offer.end_layer:
            raise NodeStartError(f"{settings.operator} has no offer for {settings.model}: make one first")
        if self.offer.numeric_profile not in NUMERIC_PROFILES.values():
            raise NodeStartError(f"numeric profile {self.offer.numeric_profile} of the offer is unknown here")
        if not self.gateway_url:
            raise NodeStartError(f"gateway {settings.gateway} has no url in the registry")


def _description(settings: NodeSettings, identity: _Identity) -> dict[str, object]:
    return {
        "address": settings.operator,
        "model": settings.model,
        "layers": [identity.offer.first_layer, identity.offer.end_layer],
        "profile": identity.profile,
        "endpoint": identity.node.endpoint,
        "gateway": settings.gateway,
    }


def _load_stages(settings: NodeSettings, identity: _Identity) -> ModelStages:
    """Pull what is missing of the offered layers and load them."""
    offer, cid = identity.offer, identity.version.manifest_cid
    blocks = BlockStore(settings.data_dir / "blocks")
    exchange = Exchange(blocks, [identity.gateway_url, *settings.ipfs_peers])
    limits = EngineLimits(
        max_sessions=settings.max_sessions,
        max_context_tokens=settings.max_context_tokens,
        max_cache_bytes=settings.max_cache_bytes,
        prefill_chunk_tokens=settings.prefill_chunk_tokens,
    )
    try:
        exchange.fetch(cid)
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
            device=settings.device,
        )
    except IpfsError as error:
        raise WorkerError(f"the model's shards: {error}") from error
    except ValueError as error:
        raise NodeStartError(str(error)) from error
    finally:
        exchange.close()


def _warm_up(stages: ModelStages, offer: Offer) -> float:
    """Make the engine of the whole offer ready; returns seconds per token and layer."""
    stages.get(offer.first_layer, offer.end_layer)
    stage = stages.load_stage(offer.first_layer, offer.end_layer)
    return stage.measure_s_per_token() / (offer.end_layer - offer.first_layer)


def _served(settings: NodeSettings, identity: _Identity, manifest: Manifest) -> Served:
    offer = identity.offer
    cid = identity.version.manifest_cid
    return Served(model_id(manifest.name), cid, offer.first_layer, offer.end_layer, settings.max_sessions)


def _terms(settings: NodeSettings, identity: _Identity, stages: ModelStages) -> Terms:
    offer, manifest = identity.offer, stages.manifest
    return Terms(
        node=settings.operator,
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
            time.sleep(JOIN_AGAIN_S)


def _let_receipts_leave(pipeline: Pipeline) -> None:
    deadline = time.monotonic() + RECEIPTS_LEAVE_S
    while pipeline.status().num_receipts_waiting and time.monotonic() < deadline:
        time.sleep(0.05)
