"""Model folders into shards and back: every tensor byte for byte, and no hostile folder gets in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from declai.ipfs.errors import InvalidManifest, PublishError
from declai.ipfs.manifest import Manifest
from declai.ipfs.shards import ModelFacts, ShardKey, publish_folder, pull_stage, pull_tokenizer
from declai.ipfs.store import BlockStore

FACTS = ModelFacts(num_layers=3, hidden_size=8, vocab_size=32, context_length=64, dtype="float32", eos_token_ids=[1])


def tensors(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    names = ["embed.weight", "norm.weight", *(f"layers.{i}.{part}" for i in range(3) for part in ("attn", "mlp"))]
    return {name: random.standard_normal((32, 8)).astype(np.float32) for name in names}


def shards_of(name: str) -> list[ShardKey]:
    if name.startswith("layers."):
        return [int(name.split(".")[1])]
    return ["embedding", "head"] if name.startswith("embed") else ["head"]


def write_folder(folder: Path, *, sharded: bool) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny", "num_hidden_layers": 3}))
    (folder / "tokenizer.json").write_text("{}")
    everything = tensors()
    if not sharded:
        save_file(everything, folder / "model.safetensors")
        return folder
    halves = [dict(list(everything.items())[:4]), dict(list(everything.items())[4:])]
    weight_map = {}
    for number, half in enumerate(halves):
        name = f"model-{number}.safetensors"
        save_file(half, folder / name)
        weight_map |= dict.fromkeys(half, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def publish(folder: Path, store: BlockStore) -> Manifest:
    return publish_folder(folder, name="tiny", facts=FACTS, shards_of=shards_of, store=store)


@pytest.mark.parametrize("sharded", [False, True])
def test_stages_get_their_tensors_and_no_others(tmp_path: Path, sharded: bool) -> None:
    store = BlockStore(tmp_path / "blocks")
    manifest = publish(write_folder(tmp_path / "model", sharded=sharded), store)
    wanted = {
        (0, 1): {"embed.weight", "layers.0.attn", "layers.0.mlp"},
        (1, 2): {"layers.1.attn", "layers.1.mlp"},
        (2, 3): {"layers.2.attn", "layers.2.mlp", "embed.weight", "norm.weight"},
        (0, 3): set(tensors()),
    }
    for (first_layer, end_layer), names in wanted.items():
        paths = pull_stage(manifest, first_layer, end_layer, store, None, tmp_path / "pulled")
        loaded = {name: tensor for path in paths for name, tensor in load_file(path).items()}
        assert set(loaded) == names
        assert all(np.array_equal(loaded[name], tensors()[name]) for name in names)
    assert (pull_tokenizer(manifest, store, None, tmp_path / "tok") / "tokenizer.json").read_text() == "{}"


def test_one_model_has_one_cid_however_it_is_stored(tmp_path: Path) -> None:
    store = BlockStore(tmp_path / "blocks")
    one = publish(write_folder(tmp_path / "one", sharded=False), store)
    two = publish(write_folder(tmp_path / "two", sharded=True), store)
    assert one.save(store) == two.save(store)
    assert one.shard_root(0, 2) != one.shard_root(0, 3)
    assert Manifest.from_bytes(one.to_bytes()) == one


def test_a_pulled_file_that_was_changed_is_written_again(tmp_path: Path) -> None:
    store = BlockStore(tmp_path / "blocks")
    manifest = publish(write_folder(tmp_path / "model", sharded=False), store)
    path = pull_stage(manifest, 1, 2, store, None, tmp_path / "pulled")[0]
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"x")
    pull_stage(manifest, 1, 2, store, None, tmp_path / "pulled")
    assert path.read_bytes() == good


def test_pickles_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(PublishError, match="convert it to safetensors"):
        publish(tmp_path, BlockStore(tmp_path / "blocks"))


@pytest.mark.parametrize("damage", ["cut", "header", "length", "overlap", "missing layer"])
def test_damaged_folders_are_refused(tmp_path: Path, damage: str) -> None:
    folder = write_folder(tmp_path / "model", sharded=False)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-4])
    elif damage == "header":
        path.write_bytes(data[:8] + b"x" + data[9:])
    elif damage == "length":
        path.write_bytes((2**40).to_bytes(8, "little") + data[8:])
    elif damage == "overlap":
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        for tensor in header.values():
            tensor["data_offsets"] = [0, 1024]
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(1024))
    else:
        save_file({name: t for name, t in tensors().items() if not name.startswith("layers.1")}, path)
    with pytest.raises(PublishError):
        publish(folder, BlockStore(tmp_path / "blocks"))


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", "model.bin", ""])
def test_an_index_names_files_of_its_folder_alone(tmp_path: Path, file: str) -> None:
    folder = write_folder(tmp_path / "model", sharded=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"embed.weight": file}}))
    with pytest.raises(PublishError):
        publish(folder, BlockStore(tmp_path / "blocks"))


@given(st.binary(max_size=400) | st.text(max_size=200).map(str.encode))
def test_bytes_that_are_no_manifest_raise_one_error(data: bytes) -> None:
    with pytest.raises(InvalidManifest):
        Manifest.from_bytes(data)


@pytest.mark.parametrize("path", ["../x", "/x", ".hidden", "a/b", "", "x" * 200])
def test_tokenizer_files_have_plain_names(tmp_path: Path, path: str) -> None:
    store = BlockStore(tmp_path / "blocks")
    manifest = publish(write_folder(tmp_path / "model", sharded=False), store)
    fields = manifest.model_dump(mode="json")
    fields["tokenizer"][0]["path"] = path
    with pytest.raises(InvalidManifest):
        Manifest.from_bytes(json.dumps(fields).encode())
