"""The models that can be asked for: names on chain, manifests and tokenizers from the block store, kept once read."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from declai.api.errors import ModelNotFound, NoCapacity
from declai.chain.contracts.models import model_id
from declai.chain.index import EventIndex
from declai.chain.state import ModelEntry
from declai.ipfs.errors import IpfsError
from declai.ipfs.exchange import Fetch
from declai.ipfs.manifest import Manifest
from declai.ipfs.shards import pull_tokenizer
from declai.ipfs.store import BlockStore
from declai.protocol.chat_template import Clock
from declai.protocol.errors import InvalidGrammar
from declai.protocol.grammar import GrammarCompiler
from declai.protocol.tokenizer import ModelTokenizer

logger = logging.getLogger(__name__)
CLOCK = Clock(time.monotonic, partial(datetime.now, UTC))


@dataclass(frozen=True)
class ListedModel:
    """A model that has a version to serve. `published_at` in Unix seconds, 0 when the index does not tell."""

    name: str
    publisher: str
    manifest_cid: str
    num_layers: int
    published_at: int


@dataclass(frozen=True)
class ServedModel:
    """One version of a model, ready to tokenise for."""

    listed: ListedModel
    id: bytes
    manifest: Manifest
    tokenizer: ModelTokenizer
    grammars: GrammarCompiler

    @property
    def name(self) -> str:
        return self.listed.name

    @property
    def manifest_cid(self) -> str:
        return self.listed.manifest_cid


class ModelCatalog:
    """Looks models up by name. `get` blocks: call it in a thread."""

    def __init__(self, index: EventIndex, blocks: BlockStore, cache_dir: Path, fetch: Fetch | None = None) -> None:
        """`fetch` makes a CID present in `blocks`; without it only what is there can be served."""
        self._index = index
        self._blocks = blocks
        self._cache_dir = cache_dir
        self._fetch = fetch
        self._lock = threading.Lock()
        self._loaded: dict[ListedModel, ServedModel] = {}

    def listed(self) -> list[ListedModel]:
        """Every model with a version to serve, by name."""
        found = [_listed(model) for model in list(self._index.state.models.values())]
        return sorted((model for model in found if model is not None), key=lambda model: model.name)

    def get(self, name: str) -> ServedModel:
        """The version of a model that is served now.

        Raises:
            ModelNotFound: no such name, or every version is deprecated.
            NoCapacity: its files cannot be had now, or cannot be used.
        """
        model = self._index.state.models.get(model_id(name))
        found = _listed(model) if model else None
        if found is None:
            known = ", ".join(listed.name for listed in self.listed()[:20]) or "none"
            raise ModelNotFound(f"no model {name[:100]!r} on this network; there is: {known}", param="model")
        served = self._loaded.get(found)
        if served is None:
            with self._lock:
                served = self._loaded.get(found) or self._load(found)
                self._loaded[found] = served
        return served

    def _load(self, listed: ListedModel) -> ServedModel:
        name, cid = listed.name, listed.manifest_cid
        try:
            if self._fetch is not None:
                self._fetch(cid)
            manifest = Manifest.load(cid, self._blocks)
            folder = pull_tokenizer(manifest, self._blocks, self._fetch, self._cache_dir / cid)
            tokenizer = ModelTokenizer(folder, CLOCK, eos_token_ids=manifest.eos_token_ids)
        except IpfsError as error:
            logger.warning("model %s (%s) cannot be opened: %s", name, cid, error)
            raise NoCapacity(f"the files of {name} cannot be opened here now: {error}", param="model") from None
        grammars = GrammarCompiler(tokenizer.tokens, manifest.vocab_size, manifest.eos_token_ids)
        with contextlib.suppress(InvalidGrammar):  # whoever asks for a grammar is told
            grammars.load()
        return ServedModel(listed, model_id(name), manifest, tokenizer, grammars)


def _listed(model: ModelEntry) -> ListedModel | None:
    """The version with the largest share, as the registry's `current` has it; None when none is served."""
    shares = [(weight, -version) for version, weight in model.rollout if not model.versions[version].deprecated]
    if shares:
        version = model.versions[-max(shares)[1]]
    else:
        alive = [version for version in model.versions if not version.deprecated]
        if model.rollout or not alive:
            return None
        version = alive[-1]
    return ListedModel(model.name, model.publisher, version.manifest_cid, version.num_layers, version.published_at)
