"""One running gateway: everything that its routes use, opened and closed together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import redis
from redis import asyncio as redis_asyncio

from api.auth.signin import SignInService
from api.credits.admission import Admission
from api.credits.reservations import Reservations
from api.scheduling.nodes import NodeDirectory
from api.serving.catalog import ModelCatalog
from api.serving.generator import Generator
from api.serving.hub import LinkHub
from api.serving.pipeline import Timeouts
from api.services import Keys, open_chain, open_keys, operator_of
from api.settings import GatewaySettings
from api.store.store import Store
from chain.client import Chain
from chain.errors import ChainError
from chain.index import EventIndex
from ipfs.store import BlockStore
from worker.broker import dispatch, limit_connections
from worker.errors import BrokerError
from worker.jobs import Envelope, Peer
from worker.links import LinkKeyPair

logger = logging.getLogger(__name__)
INDEX_EVERY_S = 2.0
BROKER_CHECK_EVERY_S = 10.0


@dataclass
class Gateway:
    """The parts; routes reach it as `request.app.state.gateway`."""

    settings: GatewaySettings
    operator: str
    keys: Keys
    chain: Chain
    index: EventIndex
    store: Store
    blocks: BlockStore
    catalog: ModelCatalog
    directory: NodeDirectory
    hub: LinkHub
    signin: SignInService
    admission: Admission
    generator: Generator
    redis: redis_asyncio.Redis
    peer: Peer


@asynccontextmanager
async def open_gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Open a gateway and keep it in step with the chain until the block ends.

    Raises:
        ChainError: the chain, its contracts or this gateway's registration are not there.
        KeystoreError: a key cannot be opened.
    """
    gateway = await asyncio.to_thread(_assemble, settings)
    gateway.hub.start()
    chores = [
        asyncio.create_task(_follow_chain(gateway.index), name="index"),
        asyncio.create_task(_watch_broker(gateway.redis), name="broker"),
    ]
    try:
        yield gateway
    finally:
        await gateway.generator.stop()
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        await gateway.hub.stop()
        await gateway.redis.aclose()
        await asyncio.to_thread(gateway.store.close)
        await asyncio.to_thread(gateway.index.close)


def _assemble(settings: GatewaySettings) -> Gateway:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    chain, keys = open_chain(settings), open_keys(settings)
    operator = operator_of(settings, chain, keys.signer.address)
    index = EventIndex(settings.data_dir / "index.db", chain)
    index.sync()
    store = Store(settings.store_url)
    lost = store.fail_all_running("the gateway was restarted while this request ran")
    if lost:
        logger.warning("%d requests were running when the gateway last ended: they cost nothing", lost)
    url = settings.redis_url.get_secret_value()
    client = redis_asyncio.Redis.from_url(url)
    reservations = Reservations(redis.Redis.from_url(url), store, operator)
    reservations.forget_all()
    blocks = BlockStore(settings.blocks_dir)
    directory = NodeDirectory(index, chain, operator)
    link_keys = LinkKeyPair.load(settings.link_key)
    registered = index.state.nodes[operator]
    peer = Peer(address=operator, link_key=link_keys.public, endpoint=registered.endpoint)
    hub = LinkHub(link_keys, settings.link_bind, directory)
    admission = Admission(
        store,
        reservations,
        chain,
        index,
        gateway=operator,
        session_account=keys.session,
        max_unacknowledged=settings.max_unacknowledged,
    )

    async def send_tasks(envelopes: list[tuple[str, Envelope]]) -> None:
        await asyncio.gather(*(dispatch(client, node, envelope) for node, envelope in envelopes))

    generator = Generator(
        hub=hub,
        directory=directory,
        admission=admission,
        dispatch=send_tasks,
        gateway=peer,
        account=keys.signer,
        domain=chain.domain,
        fee_bps=settings.fee_bps,
        timeouts=Timeouts(settings.ready_timeout_s, settings.stall_timeout_s, settings.receipt_timeout_s),
        max_running=settings.max_requests_running,
    )
    signin = SignInService(
        store,
        chain,
        gateway=operator,
        session_key=keys.session.address,
        domain=settings.domain,
        key_days=settings.api_key_days,
    )
    return Gateway(
        settings=settings,
        operator=operator,
        keys=keys,
        chain=chain,
        index=index,
        store=store,
        blocks=blocks,
        catalog=ModelCatalog(index, blocks, settings.data_dir / "tokenizers"),
        directory=directory,
        hub=hub,
        signin=signin,
        admission=admission,
        generator=generator,
        redis=cast("redis_asyncio.Redis", client),
        peer=peer,
    )


async def _follow_chain(index: EventIndex) -> None:
    while True:
        try:
            await asyncio.to_thread(index.sync)
        except ChainError as error:
            logger.warning("the chain cannot be followed now: %s", error)
        except Exception:
            logger.exception("the index failed; trying again")
        await asyncio.sleep(INDEX_EVERY_S)


async def _watch_broker(client: redis_asyncio.Redis) -> None:
    while True:
        await asyncio.sleep(BROKER_CHECK_EVERY_S)
        with contextlib.suppress(BrokerError):
            for user, held in (await limit_connections(client)).items():
                logger.warning("%s held %d connections to the broker: all were closed", user, held)
