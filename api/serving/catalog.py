"""The models that can be asked for: names on chain, manifests and tokenizers from the block store, kept once read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from api.errors import ModelNotFound
from api.serving.tokenizer import ModelTokenizer
from chain.contracts.models import model_id
from chain.index import EventIndex
from chain.state import Model
from ipfs.manifest import Manifest
from ipfs.shards import pull_tokenizer
from ipfs.store import BlockStore


@dataclass(frozen=True)
class ServedModel:
    """One version of a model, ready to tokenise for."""

    name: str
    id: bytes
    manifest_cid: str
    manifest: Manifest
    tokenizer: ModelTokenizer


class ModelCatalog:
    """Looks models up by name. Blocking: call in a thread."""

    def __init__(
        self, index: EventIndex, blocks: BlockStore, cache_dir: Path, fetch: Callable[[str], None] | None = None
    ) -> None:
        """`fetch` makes a CID present in `blocks`; without it only what is there can be served."""
        self._index = index
        self._blocks = blocks
        self._cache_dir = cache_dir
        self._fetch = fetch
        self._lock = threading.Lock()
        self._loaded: dict[str, ServedModel] = {}

    def names(self) -> list[tuple[str, Model]]:
        """Every model with a version to serve, by name."""
        found = [(model.name, model) for model in self._index.state.models.values() if current_cid(model)]
        return sorted(found, key=lambda pair: pair[0])

    def get(self, name: str) -> ServedModel:
        """Raises ModelNotFound."""
        model = self._index.state.models.get(model_id(name))
        cid = current_cid(model) if model else None
        if cid is None:
            known = ", ".join(known for known, _ in self.names()) or "none"
            raise ModelNotFound(f"no model {name[:100]!r} on this network; there is: {known}", param="model")
        with self._lock:
            if cid not in self._loaded:
                self._loaded[cid] = self._load(name, cid)
            return self._loaded[cid]

    def _load(self, name: str, cid: str) -> ServedModel:
        if self._fetch is not None:
            self._fetch(cid)
        manifest = Manifest.load(cid, self._blocks)
        folder = pull_tokenizer(manifest, self._blocks, self._fetch, self._cache_dir / cid)
        return ServedModel(name, model_id(name), cid, manifest, ModelTokenizer(folder))


def current_cid(model: Model) -> str | None:
    """The manifest of the version with the largest share, or None when nothing is served."""
    shares = [(weight, -version) for version, weight in model.rollout if not model.versions[version].deprecated]
    if shares:
        return model.versions[-max(shares)[1]].manifest_cid
    alive = [version for version in model.versions if not version.deprecated]
    return alive[-1].manifest_cid if alive and not model.rollout else None
