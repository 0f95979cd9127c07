"""The stages of one model that a node can run: shards pulled, weights loaded, one engine per range of layers."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from tokenizers import Tokenizer
from torch import nn

from declai.ipfs.exchange import Fetch
from declai.ipfs.manifest import Manifest
from declai.ipfs.shards import pull_stage, pull_tokenizer
from declai.ipfs.store import BlockStore
from declai.protocol.errors import InvalidGrammar
from declai.protocol.grammar import Constraint, GrammarCompiler
from declai.protocol.options import Grammar
from declai.protocol.wire import Dtype
from declai.worker.engine import Engine, EngineLimits
from declai.worker.engine.memory.kept_rows import KeptRows
from declai.worker.errors import WorkerError
from declai.worker.job.stage_engine import StageIdentity
from declai.worker.model.architecture import inspect_architecture
from declai.worker.model.stage import Stage

LINK_DTYPE: Dtype = "float32"  # of hidden states, in every numeric profile
MAX_ENGINES = 4


class NotLoaded(WorkerError):
    """These layers cannot be run here now."""


class ModelStages:
    """Engines for parts of the layers [first_layer, end_layer) of a model, made when first asked for. Thread-safe.

    Parts that overlap share their weights, whether those are memory-mapped or were brought into the profile's format.
    """

    def __init__(
        self,
        manifest: Manifest,
        first_layer: int,
        end_layer: int,
        profile: str,
        limits: EngineLimits,
        *,
        blocks: BlockStore,
        fetch: Fetch | None,
        folder: Path,
        kept_rows: KeptRows,
        device: torch.device | str = "cpu",
    ) -> None:
        """Pull the shards of all these layers; all engines share `kept_rows`.

        Raises what `ipfs` and `worker.model` raise when that fails.
        """
        self.manifest = manifest
        self.profile = profile
        self._limits = limits
        self._blocks = blocks
        self._folder = folder
        self._kept_rows = kept_rows
        self._device = device
        self._linears: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()
        self._lock = threading.Lock()
        self._loaded: dict[tuple[int, int], tuple[Stage, Engine]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(manifest.architecture))
        self._architecture = inspect_architecture(folder)
        pull_stage(manifest, first_layer, end_layer, blocks, fetch, folder)
        pull_tokenizer(manifest, blocks, fetch, folder)
        self._tokenizer = self._load_tokenizer() if end_layer == manifest.num_layers else None
        self._grammars = _compiler(manifest, self._tokenizer)

    def get(self, first_layer: int, end_layer: int) -> tuple[Engine, StageIdentity]:
        """The engine for a range of layers, and what its receipts say it computes with. Raises NotLoaded."""
        _, engine = self._load(first_layer, end_layer)
        root = self.manifest.shard_root(first_layer, end_layer)
        return engine, StageIdentity(self.profile, LINK_DTYPE, root)

    def constraint(self, grammar: Grammar) -> Constraint:
        """A grammar compiled for the model's tokens. Raises InvalidGrammar."""
        if self._grammars is None:
            raise InvalidGrammar("grammars need the last layers and the model's tokenizer.json")
        return self._grammars.constraint(grammar)

    def engines(self) -> dict[tuple[int, int], Engine]:
        """Those made so far, by the layers [first, end) that they run."""
        with self._lock:
            return {layers: engine for layers, (_, engine) in self._loaded.items()}

    def measure_s_per_token_layer(self, first_layer: int, end_layer: int) -> float:
        """Seconds per token and layer of a decode forward; only while the engine is idle. Raises NotLoaded."""
        stage, _ = self._load(first_layer, end_layer)
        return stage.measure_s_per_token() / (end_layer - first_layer)

    def _load(self, first_layer: int, end_layer: int) -> tuple[Stage, Engine]:
        with self._lock:
            found = self._loaded.get((first_layer, end_layer))
            if found is None:
                if len(self._loaded) >= MAX_ENGINES:
                    raise NotLoaded(f"{MAX_ENGINES} other cuts of the model are loaded already")
                files = pull_stage(self.manifest, first_layer, end_layer, self._blocks, None, self._folder)
                stage = Stage.load(
                    self._architecture, first_layer, end_layer, files, self.profile, self._device, self._linears
                )
                found = stage, Engine(stage, self._limits, self._tokenizer, self._kept_rows)
                self._loaded[first_layer, end_layer] = found
            return found

    def _load_tokenizer(self) -> Tokenizer | None:
        path = self._folder / "tokenizer.json"
        return Tokenizer.from_file(str(path)) if path.exists() else None


def _compiler(manifest: Manifest, tokenizer: Tokenizer | None) -> GrammarCompiler | None:
    """A compiler that is ready: making it while jobs run would hold them all up."""
    if tokenizer is None:
        return None
    compiler = GrammarCompiler(tokenizer, manifest.vocab_size, manifest.eos_token_ids)
    with contextlib.suppress(InvalidGrammar):  # whoever asks for a grammar is told
        compiler.load()
    return compiler
