"""The models that can be asked for: names on chain, manifests and tokenizers from the block store, kept once read."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from api.errors import ModelNotFound, NoCapacity
from api.serving.tokenizer import ModelTokenizer
from chain.contracts.models import model_id
from chain.index import EventIndex
from chain.state import Model
from ipfs.errors import IpfsError
from ipfs.exchange import Fetch
from ipfs.manifest import Manifest
from ipfs.shards import pull_tokenizer
from ipfs.store import BlockStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """One version of a model, ready to tokenise for."""

    name: str
    id: bytes
    manifest_cid: str
    manifest: Manifest
    tokenizer: ModelTokenizer


@dataclass(frozen=True)
class ListedModel:
    """A model that has a version to serve. `published_at` in Unix seconds, 0 when the index does not tell."""

    name: str
    publisher: str
    manifest_cid: str
    num_layers: int
    published_at: int


class ModelCatalog:
    """Looks models up by name. `get` blocks: call it in a thread."""

    def __init__(self, index: EventIndex, blocks: BlockStore, cache_dir: Path, fetch: Fetch | None = None) -> None:
        """`fetch` makes a CID present in `blocks`; without it only what is there can be served."""
        self._index = index
        self._blocks = blocks
        self._cache_dir = cache_dir
        self._fetch = fetch
        self._lock = threading.Lock()
        self._loaded: dict[tuple[str, str], ServedModel] = {}

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
        cid = current_cid(model) if model else None
        if cid is None:
            known = ", ".join(listed.name for listed in self.listed()[:20]) or "none"
            raise ModelNotFound(f"no model {name[:100]!r} on this network; there is: {known}", param="model")
        served = self._loaded.get((name, cid))
        if served is None:
            with self._lock:
                served = self._loaded.get((name, cid)) or self._load(name, cid)
                self._loaded[name, cid] = served
        return served

    def _load(self, name: str, cid: str) -> ServedModel:
        try:
            if self._fetch is not None:
                self._fetch(cid)
            manifest = Manifest.load(cid, self._blocks)
            folder = pull_tokenizer(manifest, self._blocks, self._fetch, self._cache_dir / cid)
            tokenizer = ModelTokenizer(folder)
        except IpfsError as error:
            logger.warning("model %s (%s) cannot be opened: %s", name, cid, error)
            raise NoCapacity(f"the files of {name} cannot be opened here now: {error}", param="model") from None
        return ServedModel(name, model_id(name), cid, manifest, tokenizer)


def current_cid(model: Model) -> str | None:
    """The manifest of the version with the largest share, as the registry's `current`; None when none is served."""
    version = _current_version(model)
    return None if version is None else model.versions[version].manifest_cid


def _current_version(model: Model) -> int | None:
    shares = [(weight, -version) for version, weight in model.rollout if not model.versions[version].deprecated]
    if shares:
        return -max(shares)[1]
    alive = [index for index, version in enumerate(model.versions) if not version.deprecated]
    return alive[-1] if alive and not model.rollout else None


def _listed(model: Model) -> ListedModel | None:
    index = _current_version(model)
    if index is None:
        return None
    version = model.versions[index]
    return ListedModel(model.name, model.publisher, version.manifest_cid, version.num_layers, version.published_at)
