"""The proof that a model's stages equal the whole, before it is published."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING

from declai.worker.model.check import split_check
from declai.worker.model.config import UnsupportedArchitecture
from tests.support.zoo import ARCHITECTURES, VOCAB_SIZE, Zoo, save_random_model


@pytest.mark.parametrize("name", ["llama-tied", "gemma3", "bloom", "deepseek-v3"])
def test_supported_models_pass(zoo: Zoo, name: str) -> None:
    report = split_check(zoo.folder(name))
    assert report.real_weights
    assert report.max_relative_difference < 1e-5


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt-oss", "opt"])
def test_weights_beyond_memory_are_checked_on_a_shrunk_model(tmp_path: Path, name: str) -> None:
    config = ARCHITECTURES[name]()
    config.get_text_config().vocab_size = 5000
    folder = save_random_model(config, tmp_path / "model")
    whole_bytes = (folder / "model.safetensors").stat().st_size
    report = split_check(folder, max_memory_bytes=whole_bytes // 2)
    assert not report.real_weights
    assert report.max_relative_difference < 1e-5
    with pytest.raises(UnsupportedArchitecture, match="bytes of memory"):
        split_check(folder, max_memory_bytes=1000)


def test_positions_added_outside_the_layers_are_found_out(tmp_path: Path) -> None:
    config = CONFIG_MAPPING["ctrl"](vocab_size=VOCAB_SIZE, n_embd=32, n_layer=3, n_head=4, dff=48, n_positions=64)
    with pytest.raises(UnsupportedArchitecture, match="differs from the whole by"):
        split_check(save_random_model(config, tmp_path / "model"))


def test_inputs_of_every_layer_are_found_out(tmp_path: Path) -> None:
    config = CONFIG_MAPPING["gemma4_text"](
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=16,
        vocab_size_per_layer_input=VOCAB_SIZE,
        hidden_size_per_layer_input=8,
    )
    with pytest.raises(UnsupportedArchitecture, match="layer by layer"):
        split_check(save_random_model(config, tmp_path / "model"))


@pytest.mark.parametrize("damage", ["nan", "missing", "cut off"])
def test_damaged_weights_are_refused(zoo: Zoo, tmp_path: Path, damage: str) -> None:
    (tmp_path / "config.json").write_bytes((zoo.folder("llama") / "config.json").read_bytes())
    tensors = load_file(zoo.folder("llama") / "model.safetensors")
    if damage == "nan":
        tensors["model.layers.1.mlp.up_proj.weight"] = torch.full_like(
            tensors["model.layers.1.mlp.up_proj.weight"], float("nan")
        )
    elif damage == "missing":
        del tensors["model.layers.1.mlp.up_proj.weight"]
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnsupportedArchitecture):
        split_check(tmp_path)
