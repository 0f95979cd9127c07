"""ModelRegistry: names, versions and which version is served."""

from __future__ import annotations

from dataclasses import dataclass

from eth_utils.crypto import keccak

from declai.chain.contracts.binding import Binding, Call


def model_id(name: str) -> bytes:
    """The 32 bytes by which contracts know a model: keccak256 of its UTF-8 name."""
    return keccak(text=name)


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model; `published_at` in Unix seconds."""

    num_layers: int
    published_at: int
    deprecated: bool
    manifest_cid: str


class ModelRegistry(Binding):
    """Versions count from 0; only its publisher changes a model."""

    name = "ModelRegistry"

    def publisher(self, model: bytes) -> str:
        return str(self._read("publisher", model))

    def num_versions(self, model: bytes) -> int:
        return int(self._read("numVersions", model))

    def version(self, model: bytes, index: int) -> ModelVersion:
        return self._read_row(ModelVersion, "version", model, index)

    def current(self, model: bytes) -> tuple[int, ModelVersion]:
        """(index, version) with the largest share of the rollout."""
        index, row = self._read("current", model)
        return int(index), ModelVersion(*row)

    def publish(self, name: str, manifest_cid: str, num_layers: int) -> Call:
        return self._call("publish", name, manifest_cid, num_layers)

    def deprecate(self, name: str, version: int) -> Call:
        return self._call("deprecate", name, version)
