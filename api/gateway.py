"""One running gateway: everything that its routes use, opened and closed together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import redis
from redis import asyncio as redis_asyncio

from declai.api.auth.signin import SignInService
from declai.api.credits.admission import Admission
from declai.api.credits.reservations import Reservations
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

logger = logging.getLogger(__name__)
FOLLOW_CHAIN_EVERY_S = 1.0
CHECK_BROKER_EVERY_S = 10.0


@dataclass(frozen=True)
class Gateway:
    """The parts; routes reach it as `request.app.state.gateway`."""

    settings: GatewaySettings
    operator: str
    keys: Keys
    chain: Chain
    index: EventIndex
    store: Store
    blocks: BlockStore
    redis: redis_asyncio.Redis
    directory: NodeDirectory
    hub: LinkHub
    peer: Peer
    catalog: ModelCatalog
    signin: SignInService
    joining: Joining
    intake: Intake
    metrics: Metrics


@dataclass(frozen=True)
class _Base:
    """What blocks while it is opened."""

    chain: Chain
    keys: Keys
    operator: str
    index: EventIndex
    store: Store
    blocks: BlockStore
    directory: NodeDirectory
    link_keys: LinkKeyPair
    reservations: Reservations


@asynccontextmanager
async def open_gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Open a gateway and keep it in step with the chain until the block ends.

    Raises:
        ChainError: the chain, its contracts or this gateway's registration are not there, or the fee is too high.
        KeystoreError, LinkKeyError: a key cannot be opened.
        LinkError: the link's address is taken.
    """
    async with AsyncExitStack() as stack:
        base = await asyncio.to_thread(_open_base, settings)
        stack.callback(base.store.close)
        stack.callback(base.index.close)
        gateway, generator = await _assemble(settings, base, stack)
        chores = asyncio.gather(_follow_chain(base.directory, gateway.hub), _guard_broker(gateway.redis))
        stack.push_async_callback(_cancel, chores)
        # Last in, first out: requests end while everything that they need is still open.
        stack.push_async_callback(generator.close)
        yield gateway


def _open_base(settings: GatewaySettings) -> _Base:
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    chain, keys = open_chain(settings), open_keys(settings)
    operator = operator_of(settings, chain, keys.signer.address)
    max_fee_bps = chain.ledger.max_fee_bps()
    if settings.fee_bps > max_fee_bps:
        raise DeploymentError(f"a fee of {settings.fee_bps} bps is over the ledger's maximum of {max_fee_bps}")
    link_keys = LinkKeyPair.load(settings.link_key)
    index = EventIndex(settings.data_dir / "index.db", chain)
    directory = NodeDirectory(index, chain, relay_through=operator if settings.relay else None)
    directory.refresh()
    if index.state.nodes[operator].link_key != link_keys.public:
        raise DeploymentError(f"{settings.link_key} is not the link key that the registry has for {operator}")
    store = Store(settings.store_url)
    num_lost = store.fail_all_running("the gateway was restarted while this request ran")
    if num_lost:
        logger.warning("%d requests ran when the gateway ended last: they cost nothing", num_lost)
    reservations = Reservations(redis.Redis.from_url(settings.redis_url.get_secret_value()), store, operator)
    reservations.forget_all()
    blocks = BlockStore(settings.blocks_dir)
    return _Base(chain, keys, operator, index, store, blocks, directory, link_keys, reservations)


async def _assemble(settings: GatewaySettings, base: _Base, stack: AsyncExitStack) -> tuple[Gateway, Generator]:
    url = settings.redis_url.get_secret_value()
    client = redis_asyncio.Redis.from_url(url)
    stack.push_async_callback(client.aclose)
    limits = RelayLimits(settings.relay_node_bytes, settings.relay_all_bytes)
    hub = LinkHub(base.link_keys, settings.link_bind, base.directory, limits)
    stack.push_async_callback(hub.close)
    registered = base.index.state.nodes[base.operator]
    peer = Peer(address=base.operator, link_key=base.link_keys.public, endpoint=registered.endpoint)
    metrics = Metrics()
    admission = Admission(
        base.store,
        base.reservations,
        base.chain,
        base.index,
        gateway=base.operator,
        session_account=base.keys.session,
        max_unacknowledged=settings.max_unacknowledged,
    )
    context = ServingContext(
        hub=hub,
        directory=base.directory,
        dispatch=partial(dispatch, client),
        gateway=peer,
        account=base.keys.signer,
        domain=base.chain.domain,
        fee_bps=settings.fee_bps,
        timeouts=Timeouts(settings.ready_timeout_s, settings.stall_timeout_s, settings.receipt_timeout_s),
        coarsest_prompt_format=settings.coarsest_prompt_format,
    )
    generator = Generator(context, admission, metrics, settings.max_requests_running)
    catalog = ModelCatalog(base.index, base.blocks, settings.data_dir / "tokenizers")
    signin = SignInService(
        base.store,
        base.chain,
        gateway=base.operator,
        session_key=base.keys.session.address,
        domain=settings.domain,
        key_days=settings.api_key_days,
    )
    joining = Joining(
        client,
        base.directory,
        gateway=peer,
        chain_id=base.chain.deployment.chain_id,
        node_redis_url=settings.node_redis_url or without_credentials(url),
    )
    gateway = Gateway(
        settings=settings,
        operator=base.operator,
        keys=base.keys,
        chain=base.chain,
        index=base.index,
        store=base.store,
        blocks=base.blocks,
        redis=client,
        directory=base.directory,
        hub=hub,
        peer=peer,
        catalog=catalog,
        signin=signin,
        joining=joining,
        intake=Intake(catalog, base.directory, admission, generator, settings.fee_bps),
        metrics=metrics,
    )
    return gateway, generator


async def _cancel(task: asyncio.Future[tuple[None, None]]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


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
