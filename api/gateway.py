"""One running gateway: everything that its routes use, opened and closed together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from functools import partial

import redis
from redis import asyncio as redis_asyncio

from declai.api.auth.signin import SignInService
from declai.api.credits.admission import Admission
from declai.api.credits.reservations import Reservations
from declai.api.credits.takeover import Takeover
from declai.api.errors import BrokerUnavailable
from declai.api.metrics import Metrics
from declai.api.nodes.accounts import limit_connections
from declai.api.nodes.directory import NodeDirectory
from declai.api.nodes.dispatch import dispatch
from declai.api.nodes.hub import LinkHub
from declai.api.nodes.joining import Joining, without_credentials
from declai.api.services import Keys, open_chain, open_keys, operator_of
from declai.api.serving.catalog import ModelCatalog
from declai.api.serving.context import ServingContext, Timeouts
from declai.api.serving.generator import Generator
from declai.api.serving.intake import Intake
from declai.api.settings import GatewaySettings
from declai.api.store.store import Store
from declai.chain.client import Chain
from declai.chain.errors import ChainError, DeploymentError
from declai.chain.index import EventIndex
from declai.ipfs.store import BlockStore
from declai.links.keys import LinkKeyPair
from declai.links.relay import RelayLimits
from declai.protocol.peers import Peer
from declai.protocol.startup import started_async

logger = logging.getLogger(__name__)
FOLLOW_CHAIN_EVERY_S = 1.0
CHECK_BROKER_EVERY_S = 10.0


class Gateway:
    """The parts; each step of the start adds its own. Routes reach it as `request.app.state.gateway`."""

    operator: str
    keys: Keys
    link_keys: LinkKeyPair
    chain: Chain
    index: EventIndex
    store: Store
    reservations: Reservations
    blocks: BlockStore
    redis: redis_asyncio.Redis
    directory: NodeDirectory
    hub: LinkHub
    peer: Peer
    catalog: ModelCatalog
    signin: SignInService
    joining: Joining
    intake: Intake

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.metrics = Metrics()


@asynccontextmanager
async def open_gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Open a gateway and keep it in step with the chain until the block ends.

    Raises:
        ChainError: the chain, its contracts or this gateway's registration are not there, or the fee is too high.
        KeystoreError, LinkKeyError: a key cannot be opened.
        LinkError: the link's address is taken.
    """
    async with started_async(Gateway(settings), STEPS) as gateway:
        yield gateway


@asynccontextmanager
async def _identity(gateway: Gateway) -> AsyncIterator[None]:
    """The keys, and who they are on chain."""

    def open_and_check() -> None:
        settings = gateway.settings
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        gateway.chain, gateway.keys = open_chain(settings), open_keys(settings)
        gateway.operator = operator_of(settings, gateway.chain, gateway.keys.signer.address)
        max_fee_bps = gateway.chain.ledger.max_fee_bps()
        if settings.fee_bps > max_fee_bps:
            raise DeploymentError(f"a fee of {settings.fee_bps} bps is over the ledger's maximum of {max_fee_bps}")
        gateway.link_keys = LinkKeyPair.load(settings.link_key)

    await asyncio.to_thread(open_and_check)
    yield


@asynccontextmanager
async def _registry(gateway: Gateway) -> AsyncIterator[None]:
    """What the chain says of nodes and models, followed up to now."""
    settings, operator = gateway.settings, gateway.operator
    gateway.index = await asyncio.to_thread(EventIndex, settings.data_dir / "index.db", gateway.chain)
    with closing(gateway.index):
        relay_through = operator if settings.relay else None
        gateway.directory = NodeDirectory(gateway.index, gateway.chain, relay_through)
        await asyncio.to_thread(gateway.directory.refresh)
        registered = gateway.index.state.nodes[operator]
        if registered.link_key != gateway.link_keys.public:
            raise DeploymentError(f"{settings.link_key} is not the link key that the registry has for {operator}")
        gateway.peer = Peer(address=operator, link_key=registered.link_key, endpoint=registered.endpoint)
        yield


@asynccontextmanager
async def _store(gateway: Gateway) -> AsyncIterator[None]:
    """What must last: requests and receipts, and the blocks that nodes fetch."""
    gateway.store = await asyncio.to_thread(Store, gateway.settings.store_url)
    with closing(gateway.store):
        gateway.blocks = BlockStore(gateway.settings.blocks_dir)
        gateway.catalog = ModelCatalog(gateway.index, gateway.blocks, gateway.settings.data_dir / "tokenizers")
        yield


@asynccontextmanager
async def _broker(gateway: Gateway) -> AsyncIterator[None]:
    """Redis, for what may be lost: queues, accounts of nodes, and what running requests have reserved."""
    url = gateway.settings.redis_url.get_secret_value()
    gateway.redis = redis_asyncio.Redis.from_url(url)
    async with aclosing(gateway.redis):
        with redis.Redis.from_url(url) as client:
            gateway.reservations = Reservations(client, gateway.store, gateway.operator)
            yield


@asynccontextmanager
async def _takeover(gateway: Gateway) -> AsyncIterator[None]:
    """This process is known to the gateway's others, and ends what dead ones left."""
    takeover = Takeover(gateway.store, gateway.reservations)
    await asyncio.to_thread(takeover.start)
    try:
        yield
    finally:
        await asyncio.to_thread(takeover.close)


@asynccontextmanager
async def _link_hub(gateway: Gateway) -> AsyncIterator[None]:
    settings = gateway.settings
    limits = RelayLimits(settings.relay_node_bytes, settings.relay_all_bytes)
    gateway.hub = LinkHub(gateway.link_keys, settings.link_bind, gateway.directory, limits)
    try:
        yield
    finally:
        await gateway.hub.close()


@asynccontextmanager
async def _chores(gateway: Gateway) -> AsyncIterator[None]:
    """What a gateway does beside its requests."""
    chores = [_follow_chain(gateway.directory, gateway.hub), _guard_broker(gateway.redis)]
    tasks = [asyncio.create_task(chore) for chore in chores]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _services(gateway: Gateway) -> AsyncIterator[None]:
    """What routes call."""
    settings = gateway.settings
    admission = Admission(
        gateway.store,
        gateway.reservations,
        gateway.chain,
        gateway.index,
        gateway=gateway.operator,
        session_account=gateway.keys.session,
        max_unacknowledged=settings.max_unacknowledged,
    )
    context = ServingContext(
        hub=gateway.hub,
        directory=gateway.directory,
        dispatch=partial(dispatch, gateway.redis),
        gateway=gateway.peer,
        account=gateway.keys.signer,
        domain=gateway.chain.domain,
        fee_bps=settings.fee_bps,
        timeouts=Timeouts(settings.ready_timeout_s, settings.stall_timeout_s, settings.receipt_timeout_s),
        coarsest_prompt_format=settings.coarsest_prompt_format,
    )
    gateway.signin = SignInService(
        gateway.store,
        gateway.chain,
        gateway=gateway.operator,
        session_key=gateway.keys.session.address,
        domain=settings.domain,
        key_days=settings.api_key_days,
    )
    gateway.joining = Joining(
        gateway.redis,
        gateway.directory,
        gateway=gateway.peer,
        chain_id=gateway.chain.deployment.chain_id,
        node_redis_url=settings.node_redis_url or without_credentials(settings.redis_url.get_secret_value()),
    )
    generator = Generator(context, admission, gateway.metrics, settings.max_requests_running)
    gateway.intake = Intake(gateway.catalog, gateway.directory, admission, generator, settings.fee_bps)
    try:
        yield
    finally:
        await generator.close()


# Undone in reverse: requests end while everything that they need is still open.
STEPS: tuple[Callable[[Gateway], AbstractAsyncContextManager[None]], ...] = (
    _identity,
    _registry,
    _store,
    _broker,
    _takeover,
    _link_hub,
    _chores,
    _services,
)


async def _follow_chain(directory: NodeDirectory, hub: LinkHub) -> None:
    while True:
        await asyncio.sleep(FOLLOW_CHAIN_EVERY_S)
        try:
            peers = directory.registry.peers
            await asyncio.to_thread(directory.refresh)
            if directory.registry.peers != peers:
                hub.keep_only(directory.registry.peers.values())
        except ChainError as error:
            logger.warning("the chain cannot be followed now: %s", error)
        except Exception:  # one bad answer must not end the following
            logger.exception("following the chain failed, trying again")


async def _guard_broker(client: redis_asyncio.Redis) -> None:
    while True:
        await asyncio.sleep(CHECK_BROKER_EVERY_S)
        try:
            for user, num_connections in (await limit_connections(client)).items():
                logger.warning("%s held %d connections to the broker: all were closed", user, num_connections)
        except BrokerUnavailable as error:
            logger.warning("the broker cannot be watched now: %s", error)
