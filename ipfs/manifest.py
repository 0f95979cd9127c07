"""The model manifest: what a model is made of, by CID. Canonical JSON (RFC 8785), so that one model has one CID."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from declai.ipfs.cid import Cid
from declai.ipfs.errors import InvalidCid, InvalidManifest
from declai.ipfs.store import BlockStore

MAX_MANIFEST_BYTES = 4 * 2**20
MAX_LAYERS = 4096
FORMAT: Literal["declai-model/1"] = "declai-model/1"


def _cid(text: str) -> str:
    try:
        return str(Cid.parse(text))
    except InvalidCid as error:
        raise ValueError(str(error)) from None


CidText = Annotated[str, AfterValidator(_cid)]
# A plain file name: no folder, no dot file, nothing that a path could be made of.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
Size = Annotated[int, Field(ge=0, lt=2**50)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TokenizerFile(_Part):
    path: FileName
    cid: CidText
    size: Size


class Shard(_Part):
    """One safetensors file; `sha256` is of its bytes, hexadecimal."""

    cid: CidText
    size: Size
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    num_tensors: Annotated[int, Field(ge=0, le=100_000)]


class Shards(_Part):
    embedding: Shard
    layers: Annotated[list[Shard], Field(min_length=1, max_length=MAX_LAYERS)]
    head: Shard


class Manifest(_Part):
    """A model. `architecture` is the content of its Hugging Face config.json."""

    format: Literal["declai-model/1"] = FORMAT
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}$")]
    architecture: dict[str, Any]
    dtype: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,20}$")]
    num_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    hidden_size: Annotated[int, Field(ge=1, le=2**20)]
    vocab_size: Annotated[int, Field(ge=1, le=2**24)]
    context_length: Annotated[int, Field(ge=1, le=2**24)]
    eos_token_ids: Annotated[list[Annotated[int, Field(ge=0, lt=2**24)]], Field(max_length=64)] = []
    tokenizer: Annotated[list[TokenizerFile], Field(max_length=32)]
    shards: Shards
    license: Annotated[str, Field(max_length=200)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Manifest:
        if len(self.shards.layers) != self.num_layers:
            raise ValueError(f"{len(self.shards.layers)} layer shards for {self.num_layers} layers")
        if len({file.path for file in self.tokenizer}) != len(self.tokenizer):
            raise ValueError("a tokenizer file is listed twice")
        return self

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return rfc8785.dumps(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Parse and check. Raises InvalidManifest."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise InvalidManifest(f"not a model manifest: {error}") from None

    def save(self, store: BlockStore) -> str:
        """Add to a store; returns the manifest's CID, which names the model for good."""
        return store.add(self.to_bytes())

    @classmethod
    def load(cls, cid: str, store: BlockStore) -> Manifest:
        """Read from a store in which it is present."""
        return cls.from_bytes(store.read_bytes(cid, MAX_MANIFEST_BYTES))

    def stage_shards(self, first_layer: int, end_layer: int) -> list[Shard]:
        """The shards of layers [first_layer, end_layer): with embedding at the start, head at the end."""
        if not 0 <= first_layer < end_layer <= self.num_layers:
            raise InvalidManifest(f"layers [{first_layer}, {end_layer}) of a model with {self.num_layers}")
        shards = [self.shards.embedding] if first_layer == 0 else []
        shards += self.shards.layers[first_layer:end_layer]
        return shards + ([self.shards.head] if end_layer == self.num_layers else [])

    def shard_root(self, first_layer: int, end_layer: int) -> bytes:
        """32 bytes that name a stage's weights: sha256 over its shards' CID digests in order."""
        digests = (Cid.parse(shard.cid).digest for shard in self.stage_shards(first_layer, end_layer))
        return hashlib.sha256(b"".join(digests)).digest()

    def cids(self) -> list[str]:
        """Everything the manifest points to."""
        shards = [self.shards.embedding, *self.shards.layers, self.shards.head]
        return [file.cid for file in self.tokenizer] + [shard.cid for shard in shards]
