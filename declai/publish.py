"""Publishing a model: check that it can be cut into stages, cut it into shards, add them, name it on chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from declai.ipfs.errors import PublishError
from declai.ipfs.manifest import Manifest
from declai.ipfs.shards import ModelFacts, ShardKey, publish_folder
from declai.ipfs.store import BlockStore, Progress


@dataclass(frozen=True)
class Publication:
    """A model in the block store: its manifest and the CID that names it."""

    manifest: Manifest
    cid: str


def add_model(
    folder: Path,
    name: str,
    store: BlockStore,
    *,
    check: bool = True,
    progress: Progress | None = None,
    license: str | None = None,
) -> Publication:
    """Put a Hugging Face folder into the block store.

    Args:
        check: run the model whole and in stages on a few tokens, and compare.

    Raises:
        PublishError: the folder is not complete.
        worker.model.config.UnsupportedArchitecture: the model cannot be cut into stages; the text says why.
    """
    # Here, because they load torch: nobody else who imports this package should wait for it.
    from declai.worker.model.architecture import inspect_architecture
    from declai.worker.model.check import split_check

    if not (folder / "config.json").is_file():
        raise PublishError(f"{folder} has no config.json: give the folder of a Hugging Face model")
    architecture = inspect_architecture(folder)
    if check:
        split_check(folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    facts = ModelFacts(
        num_layers=architecture.num_layers,
        hidden_size=architecture.hidden_size,
        vocab_size=architecture.vocab_size,
        context_length=architecture.max_positions or int(text.get("max_position_embeddings", 2**17)),
        dtype=str(text.get("dtype") or text.get("torch_dtype") or config.get("dtype") or "float32"),
        eos_token_ids=_eos_token_ids(folder, config),
    )
    shards_of: Callable[[str], Sequence[ShardKey]] = architecture.shard_of
    manifest = publish_folder(
        folder, name=name, facts=facts, shards_of=shards_of, store=store, progress=progress, license=license
    )
    return Publication(manifest, manifest.save(store))


def _eos_token_ids(folder: Path, config: dict[str, Any]) -> list[int]:
    """The ids that end an answer: those of generation_config.json, else the config's."""
    path = folder / "generation_config.json"
    generation: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found = generation.get("eos_token_id", config.get("eos_token_id"))
    if found is None:
        return []
    return [int(token_id) for token_id in (found if isinstance(found, list) else [found])]
