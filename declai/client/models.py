"""The tokenizers of models, for checking what is charged: from the gateway's blocks, verified by the chain's CID."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from functools import partial

from declai.chain.client import Chain
from declai.chain.contracts.models import model_id
from declai.home import home
from declai.ipfs.exchange import Exchange
from declai.ipfs.manifest import Manifest
from declai.ipfs.shards import pull_tokenizer
from declai.ipfs.store import BlockStore
from declai.protocol.chat_template import Clock
from declai.protocol.tokenizer import ModelTokenizer

CLOCK = Clock(time.monotonic, partial(datetime.now, UTC))


class TokenizerCache:
    """Tokenizers by model name, kept in the home folder. Blocking: call in a thread."""

    def __init__(self, chain: Chain, gateway_url: str) -> None:
        self._chain = chain
        self._gateway_url = gateway_url
        self._lock = threading.Lock()
        self._loaded: dict[str, ModelTokenizer] = {}

    def get(self, model: str) -> ModelTokenizer:
        """The tokenizer of a model's current version. Raises IpfsError or ChainError."""
        with self._lock:
            if model not in self._loaded:
                self._loaded[model] = self._load(model)
            return self._loaded[model]

    def _load(self, model: str) -> ModelTokenizer:
        _, version = self._chain.models.current(model_id(model))
        store = BlockStore(home() / "blocks")
        exchange = Exchange(store, [self._gateway_url])
        try:
            exchange.fetch(version.manifest_cid)
            manifest = Manifest.load(version.manifest_cid, store)
            folder = home() / "tokenizers" / version.manifest_cid
            pull_tokenizer(manifest, store, exchange.fetch, folder)
            return ModelTokenizer(folder, CLOCK, eos_token_ids=manifest.eos_token_ids)
        finally:
            exchange.close()
