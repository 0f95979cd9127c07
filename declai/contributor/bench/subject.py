"""What is measured: the layers that a node has pulled, those of a local folder, or a model made for the purpose."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForCausalLM, LlamaConfig

from declai.errors import DeclaiError
from declai.ipfs.shards import read_header
from declai.worker.model.architecture import Architecture, Shard, inspect_architecture
from declai.worker.model.devices import open_device
from declai.worker.model.numeric import numerics_of
from declai.worker.model.slicing import without_progress_bars
from declai.worker.model.stage import Stage
from declai.worker.node.settings import NodeSettings


@dataclass(frozen=True)
class Subject:
    """Layers [first_layer, end_layer) of the model whose config.json is in `folder`, from tensor files there."""

    name: str
    folder: Path
    files: tuple[Path, ...]
    first_layer: int
    end_layer: int
    profile: str
    device: str = "cpu"

    def load(self) -> Stage:
        """Raises what `worker.model` raises."""
        layers = self.first_layer, self.end_layer
        return Stage.load(self.architecture, *layers, self.files, self.profile, open_device(self.device))

    @property
    def architecture(self) -> Architecture:
        return inspect_architecture(self.folder)

    def num_weights(self) -> tuple[int, int]:
        """Numbers in the matrices of the layers, and of the head if it is here. An embedding is only looked up."""
        architecture = self.architecture
        tensors = {tensor.name: tensor for file in self.files for tensor in read_header(file)}

        def count(shards: set[Shard]) -> int:
            sizes = {name: math.prod(tensor.shape) for name, tensor in tensors.items() if len(tensor.shape) > 1}
            return sum(size for name, size in sizes.items() if not shards.isdisjoint(architecture.shard_of(name)))

        is_last = self.end_layer == architecture.num_layers
        return count({*range(self.first_layer, self.end_layer)}), count({"head"}) if is_last else 0


def from_folder(folder: Path, layers: tuple[int, int] | None, profile: str, device: str) -> Subject:
    """Layers of a Hugging Face folder, all of them by default."""
    first, end = layers or (0, inspect_architecture(folder).num_layers)
    files = tuple(sorted(folder.glob("*.safetensors")))
    return Subject(folder.resolve().name, folder, files, first, end, profile, device)


def from_node(settings: NodeSettings, layers: tuple[int, int] | None, profile: str | None, device: str) -> Subject:
    """The layers that the node served last, from the shards that it has pulled. Asks neither chain nor gateway.

    Raises:
        DeclaiError: it has never run.
    """
    folders = [path.parent for path in settings.data_dir.glob("models/*/config.json")]
    try:
        status = json.loads(settings.status_file.read_text())
        served, spoken = tuple(status["layers"]), str(status["profile"])
        folder = max(folders, key=lambda path: path.stat().st_mtime)
    except (OSError, ValueError, KeyError, TypeError):
        raise DeclaiError(
            f"nothing in {settings.data_dir.absolute()} says what the node serves: start it once, or name a model's "
            "folder"
        ) from None
    first, end = layers or (int(served[0]), int(served[1]))
    files = tuple(sorted(folder.glob("*.safetensors")))
    return Subject(settings.model, folder, files, first, end, profile or spoken, device)


def made(folder: Path, profile: str, device: str, *, quick: bool) -> Subject:
    """A random Llama in `folder`, of a shape that no processor's cache holds (a small one when `quick`)."""
    num_layers, hidden_size = (2, 512) if quick else (8, 1024)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 11 // 4,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 128,
        max_position_embeddings=8192,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=numerics_of(profile).dtype)  # type: ignore[no-untyped-call]
    with without_progress_bars():
        model.save_pretrained(folder)
    name = f"random Llama ({num_layers} layers, hidden {hidden_size}, {hidden_size // 64} heads, vocabulary 4096)"
    return Subject(name, folder, (folder / "model.safetensors",), 0, num_layers, profile, device)
