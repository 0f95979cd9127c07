"""What is found of an architecture from its config, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import CONFIG_MAPPING, PreTrainedConfig

from declai.worker.model.architecture import inspect_architecture
from declai.worker.model.config import UnsupportedArchitecture, parse_config, read_config
from tests.support.zoo import ARCHITECTURES, NUM_LAYERS, UNSUPPORTED, VOCAB_SIZE, WINDOW, Zoo


def as_json(config: PreTrainedConfig) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return values


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_weight_of_a_checkpoint_has_its_shard(zoo: Zoo, name: str) -> None:
    architecture = zoo.architecture(name)
    with safe_open(zoo.folder(name) / "model.safetensors", framework="pt") as file:
        shards = {tensor: architecture.shard_of(tensor) for tensor in file.keys()}  # noqa: SIM118
    assert all(shards.values())
    assert set().union(*shards.values()) >= {"embedding", *range(NUM_LAYERS), "head"} - (
        {"head"} if not any("head" in owners for owners in architecture.owners.values()) else set()
    )
    assert architecture.num_layers == NUM_LAYERS
    assert architecture.vocab_size == VOCAB_SIZE
    assert architecture.hidden_size == 32


def test_a_tied_weight_goes_to_both_sides(zoo: Zoo) -> None:
    assert zoo.architecture("llama-tied").shard_of("model.embed_tokens.weight") == ["embedding", "head"]
    assert zoo.architecture("llama").shard_of("model.embed_tokens.weight") == ["embedding"]
    assert zoo.architecture("llama").shard_of("lm_head.weight") == ["head"]


def test_names_of_older_checkpoints_are_understood(zoo: Zoo) -> None:
    gpt2 = zoo.architecture("gpt2")
    assert gpt2.shard_of("h.3.attn.c_attn.weight") == [3]
    assert gpt2.shard_of("wpe.weight") == ["embedding"]
    assert gpt2.shard_of("ln_f.bias") == ["head"]
    assert gpt2.shard_of("h.3.attn.bias") == []
    mixtral = zoo.architecture("mixtral")
    assert mixtral.shard_of("model.layers.2.block_sparse_moe.experts.1.w1.weight") == [2]
    assert mixtral.shard_of("model.layers.2.block_sparse_moe.gate.weight") == [2]


def test_a_tensor_the_model_does_not_know_belongs_nowhere(zoo: Zoo) -> None:
    assert zoo.architecture("llama").shard_of("model.layers.7.mlp.up_proj.weight") == []
    assert zoo.architecture("llama").shard_of("visual.patch_embed.weight") == []


def test_what_a_layer_keeps_per_token_is_measured(zoo: Zoo) -> None:
    assert [cache.window for cache in zoo.architecture("gemma2").layer_caches] == [WINDOW, None] * 2 + [WINDOW]
    assert {cache.elements_per_token for cache in zoo.architecture("llama").layer_caches} == {2 * 2 * 8}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_models_that_cannot_be_cut_are_refused_with_the_reason(name: str) -> None:
    config, reason = UNSUPPORTED[name]
    with pytest.raises(UnsupportedArchitecture, match=reason):
        inspect_architecture(config())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "no-such-model"}, "no-such-model"),
        ({"model_type": ["llama"]}, "model_type"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"model_type": "qwen2", "num_hidden_layers": 10**12}, "num_hidden_layers"),
        ({"text_config": {"n_layers": 10**12}}, "n_layers"),
    ],
)
def test_hostile_configs_are_refused(changes: dict[str, Any], reason: str) -> None:
    values = as_json(ARCHITECTURES["llama"]()) | changes
    with pytest.raises(UnsupportedArchitecture, match=reason):
        parse_config(values)


strange_values = st.sampled_from(
    [None, 0, -1, 1, 3, 10**9, 2**40, 1.5, "x", "", [], [None], {}, {"a": 1}, True, {"rope_type": 5}, "full_attention"]
)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(["llama", "gemma2", "gpt-oss", "falcon-alibi", "deepseek-v3"]), data=st.data())
def test_any_value_in_a_config_is_taken_or_refused(name: str, data: st.DataObject) -> None:
    values = as_json(ARCHITECTURES[name]())
    keys = st.sampled_from([*values, "get_text_config", "attribute_map", "sub_configs", "text_config", "dtype"])
    values |= data.draw(st.dictionaries(keys, strange_values, max_size=2))
    refusal = ""
    try:
        inspect_architecture(parse_config(values))
    except UnsupportedArchitecture as error:
        refusal = str(error)
    assert len(refusal) < 1000


def test_a_window_of_no_size_is_refused() -> None:
    with pytest.raises(UnsupportedArchitecture):
        inspect_architecture(parse_config(as_json(ARCHITECTURES["gemma2"]()) | {"sliding_window": None}))


def test_models_with_an_encoder_are_refused() -> None:
    with pytest.raises(UnsupportedArchitecture, match="encoder-decoder"):
        parse_config(as_json(CONFIG_MAPPING["bart"]()) | {"is_encoder_decoder": True})


def test_a_config_that_names_code_runs_none_of_it(zoo: Zoo, tmp_path: Path) -> None:
    values = as_json(ARCHITECTURES["llama"]()) | {
        "auto_map": {"AutoModelForCausalLM": "evil.Model"},
        "attn_implementation": "somebody/kernels",
        "_attn_implementation": "somebody/kernels",
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    config = read_config(tmp_path)
    assert not hasattr(config, "auto_map")
    architecture = inspect_architecture(config)
    assert architecture.model_class.__module__.startswith("transformers.")
    assert architecture.owners == zoo.architecture("llama").owners


@pytest.mark.parametrize("content", ["", "[]", "{", '"text"', "{}"])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UnsupportedArchitecture):
        read_config(tmp_path)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitecture, match=r"config\.json"):
        read_config(tmp_path)


def test_context_ends_where_cached_positions_would_change() -> None:
    def with_rope(**rope: Any) -> PreTrainedConfig:
        values = as_json(ARCHITECTURES["llama"]()) | {"rope_parameters": {"rope_theta": 10_000.0, **rope}}
        return parse_config(values)

    longrope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 4.0}
    assert inspect_architecture(with_rope(rope_type="default")).max_positions == 640
    scaled = with_rope(**longrope, original_max_position_embeddings=128)
    assert inspect_architecture(scaled).max_positions == 128
