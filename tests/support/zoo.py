"""Small random models of many architectures, saved as a Hugging Face folder each. Made on demand, kept for the run."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from declai.worker.model.architecture import Architecture, Shard, inspect_architecture

VOCAB_SIZE = 97
NUM_LAYERS = 5
WINDOW = 16
MAX_POSITIONS = 640


def _config(model_type: str, **values: Any) -> PreTrainedConfig:
    sizes = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": MAX_POSITIONS,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return CONFIG_MAPPING[model_type](**(sizes | values))


def _gpt_config(model_type: str, **values: Any) -> PreTrainedConfig:
    sizes = {"n_embd": 32, "n_layer": NUM_LAYERS, "n_head": 4, "n_positions": MAX_POSITIONS}
    return CONFIG_MAPPING[model_type](vocab_size=VOCAB_SIZE, bos_token_id=1, eos_token_id=2, **(sizes | values))


_LATENT_ATTENTION = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}

ARCHITECTURES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: _config("llama"),
    "llama-tied": lambda: _config("llama", tie_word_embeddings=True),
    "qwen2": lambda: _config("qwen2"),
    "qwen3": lambda: _config("qwen3", head_dim=16),
    "mistral": lambda: _config("mistral", sliding_window=WINDOW),
    "gemma2": lambda: _config("gemma2", head_dim=16, sliding_window=WINDOW, final_logit_softcapping=3.0),
    "gemma3": lambda: _config("gemma3_text", head_dim=16, sliding_window=WINDOW),
    "phi": lambda: _config("phi", partial_rotary_factor=0.5),
    "gpt2": lambda: _gpt_config("gpt2"),
    "gpt-neox": lambda: _config("gpt_neox", rotary_pct=0.25),
    "gptj": lambda: _gpt_config("gptj", rotary_dim=4),
    "olmo2": lambda: _config("olmo2"),
    "stablelm": lambda: _config("stablelm"),
    "falcon-alibi": lambda: CONFIG_MAPPING["falcon"](
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=4,
        alibi=True,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "bloom": lambda: CONFIG_MAPPING["bloom"](
        vocab_size=VOCAB_SIZE, hidden_size=32, n_layer=NUM_LAYERS, n_head=4, bos_token_id=1, eos_token_id=2
    ),
    "opt": lambda: CONFIG_MAPPING["opt"](
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        num_hidden_layers=NUM_LAYERS,
        ffn_dim=48,
        num_attention_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        word_embed_proj_dim=16,
    ),
    "mixtral": lambda: _config("mixtral", num_local_experts=4),
    "qwen2-moe": lambda: _config("qwen2_moe", num_experts=4, shared_expert_intermediate_size=24, **_EXPERTS),
    "cohere2": lambda: _config("cohere2", sliding_window=WINDOW, logit_scale=1.0),
    "deepseek-v3": lambda: _config(
        "deepseek_v3",
        n_routed_experts=8,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        **_LATENT_ATTENTION,
        **_EXPERTS,
    ),
    "gpt-oss": lambda: _config(
        "gpt_oss", head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW
    ),
}

# Architectures that cannot be cut between layers, and a word of the reason given.
UNSUPPORTED: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "mamba": (
        lambda: CONFIG_MAPPING["mamba"](vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=2),
        "LinearAttentionLayer",
    ),
    "qwen3-next": (
        lambda: _config(
            "qwen3_next",
            head_dim=16,
            num_experts=4,
            shared_expert_intermediate_size=24,
            linear_num_value_heads=4,
            linear_num_key_heads=2,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            **_EXPERTS,
        ),
        "LinearAttentionLayer",
    ),
    "openai-gpt": (lambda: _gpt_config("openai-gpt"), "hidden states"),
}


class Zoo:
    """Folders, whole models and shard files of the architectures, made once each under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.folder = cache(self._make_folder)
        self.architecture = cache(lambda name: inspect_architecture(self.folder(name)))
        self.whole = cache(self._load_whole)
        self.shard_files = cache(self._make_shard_files)

    def _make_folder(self, name: str) -> Path:
        return save_random_model(ARCHITECTURES[name](), self._root / name)

    def _load_whole(self, name: str) -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(self.folder(name), dtype=torch.float32)

    def _make_shard_files(self, name: str) -> dict[Shard, Path]:
        return cut_into_shards(self.architecture(name), self.folder(name), self._root / f"{name}-shards")


def save_random_model(config: PreTrainedConfig, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Weights large enough that the greedy output of a random model is not one token over and over."""
    generator = torch.Generator().manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    model.to(dtype).save_pretrained(folder)
    return folder


def cut_into_shards(architecture: Architecture, folder: Path, target: Path) -> dict[Shard, Path]:
    """One safetensors file per shard, as they are published."""
    from safetensors.torch import load_file

    target.mkdir()
    shards: dict[Shard, dict[str, torch.Tensor]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for tensor_name, tensor in load_file(path).items():
            for shard in architecture.shard_of(tensor_name):
                shards.setdefault(shard, {})[tensor_name] = tensor
    files = {shard: target / f"{shard}.safetensors" for shard in shards}
    for shard, tensors in shards.items():
        save_file(tensors, files[shard])
    return files


ONE_BY_ONE = {"gptj", "falcon-alibi", "bloom"}  # their attention is their own, or biased by distance
