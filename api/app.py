"""The gateway's ASGI app, built by one function from one settings object; nothing is opened before it starts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI

import declai
from declai.api.gateway import open_gateway
from declai.api.http import auth, blocks, chat, completions, errors, estimate, health, models, network, nodes, receipts
from declai.api.http.body_limit import LimitBodies
from declai.api.http.count import CountResponses
from declai.api.settings import GatewaySettings

# Threads wait for the store, the chain and Redis; the event loop never does.
NUM_THREADS = 32
# Python's own. py_ecc, which comes with web3, sets 100,000 when it is imported, and then a body of nested brackets
# overflows the C stack of the JSON parser and kills the process.
RECURSION_LIMIT = 1000


def create_app(settings: GatewaySettings) -> FastAPI:
    """The app of one gateway. Its lifespan opens chain, store, Redis and links, and closes them in order."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sys.setrecursionlimit(RECURSION_LIMIT)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(NUM_THREADS, "gateway"))
        async with open_gateway(settings) as gateway:
            app.state.gateway = gateway
            yield

    app = FastAPI(
        title="DeCLAI gateway",
        version=declai.__version__,
        description="OpenAI-compatible inference, paid in credits and receipted by the nodes that did the work",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(LimitBodies, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(CountResponses)
    errors.install(app)
    for routes in (chat, completions, estimate, models, auth, receipts, nodes, network, health, blocks):
        app.include_router(routes.router)
    return app
