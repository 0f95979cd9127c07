"""Model folders into shards and back: one safetensors file per layer, one for the embedding side, one for the head.

Tensors keep their names and bytes. Which tensor belongs where is the caller's knowledge (it depends on the model's
architecture) and comes in as a function. One tensor at a time is in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from declai.ipfs.errors import PublishError
from declai.ipfs.exchange import Fetch
from declai.ipfs.manifest import Manifest, Shard, Shards, TokenizerFile
from declai.ipfs.store import BlockStore, Progress

ShardKey = int | Literal["embedding", "head"]
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
MAX_HEADER_BYTES = 100 * 2**20
COPY_BYTES = 2**20


@dataclass(frozen=True)
class Tensor:
    """Where a tensor's bytes lie; `dtype` and `shape` as safetensors writes them."""

    name: str
    dtype: str
    shape: list[int]
    file: Path
    offset: int
    size: int


def read_header(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file, from its header alone.

    Raises:
        PublishError: the header is damaged, or its offsets do not tile the file exactly.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        tensors = [
            Tensor(name, item["dtype"], item["shape"], path, 8 + length + item["data_offsets"][0], _size(item))
            for name, item in header.items()
            if name != "__metadata__"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise PublishError(f"{path} is no whole safetensors file: {error!r}") from None
    at = 8 + length
    for tensor in sorted(tensors, key=lambda t: t.offset):
        if tensor.offset != at or tensor.size < 0:
            raise PublishError(f"{path}: tensors overlap or leave gaps at {tensor.name}")
        at += tensor.size
    if at != path.stat().st_size:
        raise PublishError(f"{path} has {path.stat().st_size} bytes, its header describes {at}: is it cut off?")
    return tensors


def _size(item: dict[str, Any]) -> int:
    begin, end = item["data_offsets"]
    return int(end) - int(begin)


def folder_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a Hugging Face folder, sharded or not.

    Raises:
        PublishError: no safetensors, or the index and the files disagree.
    """
    index_path = folder / "model.safetensors.index.json"
    if not index_path.exists():
        if not (folder / "model.safetensors").exists():
            pickles = sorted(path.name for path in folder.glob("*.bin"))
            hint = f" {pickles[0]} is a pickle, which can run code: convert it to safetensors." if pickles else ""
            raise PublishError(f"{folder} has no model.safetensors.{hint}")
        return {tensor.name: tensor for tensor in read_header(folder / "model.safetensors")}
    try:
        weight_map: dict[str, str] = json.loads(index_path.read_text())["weight_map"]
        files = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PublishError(f"{index_path} is no index of safetensors: {error!r}") from None
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise PublishError(f"{index_path} names {name!r}, which is no safetensors file of this folder")
    found = {tensor.name: tensor for name in files for tensor in read_header(folder / name)}
    wrong = [name for name, file in weight_map.items() if name not in found or found[name].file.name != file]
    if wrong or len(found) != len(weight_map):
        raise PublishError(f"{index_path} and its files disagree, for example about {(wrong or sorted(found))[0]}")
    return found


def shard_file(tensors: Sequence[Tensor]) -> Iterator[bytes]:
    """A safetensors file of these tensors, piece by piece; equal tensors give equal bytes."""
    header: dict[str, Any] = {}
    at = 0
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    for tensor in ordered:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, at + tensor.size]}
        at += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes, for memory mapping
    yield len(text).to_bytes(8, "little") + text
    for tensor in ordered:
        with tensor.file.open("rb") as file:
            file.seek(tensor.offset)
            left = tensor.size
            while left:
                piece = file.read(min(COPY_BYTES, left))
                if not piece:
                    raise PublishError(f"{tensor.file} ended inside {tensor.name}")
                left -= len(piece)
                yield piece


class _Pieces:
    """A readable stream over an iterator of pieces that hashes and counts what passes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""
        self.sha256, self.size = hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        if not self._rest:
            self._rest = next(self._pieces, b"")
            self.sha256.update(self._rest)
            self.size += len(self._rest)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def _add_shard(tensors: Sequence[Tensor], store: BlockStore, progress: Progress | None) -> Shard:
    stream = _Pieces(shard_file(tensors))
    cid = store.add(stream, progress)  # type: ignore[arg-type]
    return Shard(cid=cid, size=stream.size, sha256=stream.sha256.hexdigest(), num_tensors=len(tensors))


@dataclass(frozen=True)
class ModelFacts:
    """What the manifest says of a model beside its files; whoever knows the architecture fills it in."""

    num_layers: int
    hidden_size: int
    vocab_size: int
    context_length: int
    dtype: str
    eos_token_ids: list[int]


def publish_folder(
    folder: Path,
    *,
    name: str,
    facts: ModelFacts,
    shards_of: Callable[[str], Sequence[ShardKey]],
    store: BlockStore,
    progress: Progress | None = None,
    license: str | None = None,
) -> Manifest:
    """Cut a folder's tensors into shards, add them and the tokenizer's files to the store, and describe it all.

    `shards_of` maps a tensor's name to the shards that need it (tied weights go to two; none for one that is unused).
    Raises PublishError.
    """
    tensors = folder_tensors(folder)
    groups: dict[ShardKey, list[Tensor]] = {key: [] for key in ("embedding", *range(facts.num_layers), "head")}
    for tensor in tensors.values():
        for key in shards_of(tensor.name):
            if key not in groups:
                raise PublishError(f"{tensor.name} belongs to layer {key} of {facts.num_layers}")
            groups[key].append(tensor)
    empty = [key for key in range(facts.num_layers) if not groups[key]]
    if empty:
        raise PublishError(f"layer {empty[0]} of {facts.num_layers} has no tensors in {folder}")
    architecture = json.loads((folder / "config.json").read_text())
    added = {key: _add_shard(group, store, progress) for key, group in groups.items()}
    files = [path for path in (folder / file for file in TOKENIZER_FILES) if path.is_file()]
    return Manifest(
        name=name,
        architecture=architecture,
        dtype=facts.dtype,
        num_layers=facts.num_layers,
        hidden_size=facts.hidden_size,
        vocab_size=facts.vocab_size,
        context_length=facts.context_length,
        eos_token_ids=facts.eos_token_ids,
        tokenizer=[TokenizerFile(path=p.name, cid=store.add(p), size=p.stat().st_size) for p in files],
        shards=Shards(
            embedding=added["embedding"],
            layers=[added[layer] for layer in range(facts.num_layers)],
            head=added["head"],
        ),
        license=license,
    )


def folder_bytes(folder: Path) -> int:
    """Bytes of a folder's tensors: what a progress bar of `publish_folder` counts up to."""
    return sum(tensor.size for tensor in folder_tensors(folder).values())


def pull_stage(
    manifest: Manifest, first_layer: int, end_layer: int, store: BlockStore, fetch: Fetch | None, folder: Path
) -> list[Path]:
    """Local safetensors files of a stage's shards alone, verified; in the order of `Manifest.stage_shards`."""
    paths = []
    for shard in manifest.stage_shards(first_layer, end_layer):
        path = folder / f"{shard.cid}.safetensors"
        _materialise(shard.cid, path, store, fetch, size=shard.size, sha256=shard.sha256)
        paths.append(path)
    return paths


def pull_tokenizer(manifest: Manifest, store: BlockStore, fetch: Fetch | None, folder: Path) -> Path:
    """The tokenizer's files under their own names in `folder`; returns it."""
    for file in manifest.tokenizer:
        _materialise(file.cid, folder / file.path, store, fetch, size=file.size, sha256=None)
    return folder


def _materialise(
    cid: str, path: Path, store: BlockStore, fetch: Fetch | None, *, size: int, sha256: str | None
) -> None:
    """Write a file of the store, whole and verified, or leave a good one as it is."""
    if path.exists() and path.stat().st_size == size and sha256 is not None and _sha256(path) == sha256:
        return
    if fetch is not None:
        fetch(cid)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    hasher, written = hashlib.sha256(), 0
    try:
        with os.fdopen(descriptor, "wb") as out:
            for piece in store.read(cid):
                hasher.update(piece)
                written += len(piece)
                out.write(piece)
        if written != size or (sha256 is not None and hasher.hexdigest() != sha256):
            raise PublishError(f"{cid} is not what the manifest says: {written} bytes instead of {size}, or other ones")
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
