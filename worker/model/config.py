"""Reads a model's `config.json` without trusting it: no remote code, no downloads, no quantised formats, sane sizes."""

import json
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from declai.worker.errors import WorkerError

MAX_CONFIG_BYTES = 1 << 20
MAX_LAYERS = 1024
_MAX_REASON_CHARS = 300
_LIMITS = {"num_hidden_layers": MAX_LAYERS, "hidden_size": 1 << 17, "vocab_size": 1 << 22}
# Keys by which a config could name code, kernels or files to fetch: those are chosen here, never by the publisher.
_UNTRUSTED_KEYS = frozenset(
    {"auto_map", "custom_pipelines", "transformers_weights", "fusion_config", "distributed_config", "name_or_path"}
)


class UnsupportedArchitecture(WorkerError):
    """A model that cannot be served in stages; the text says why."""


def brief(error: Exception) -> str:
    """The kind of an error and the beginning of its text: some print a whole config."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_MAX_REASON_CHARS]}"


def read_config(folder: Path) -> PreTrainedConfig:
    """The config of the Hugging Face model in `folder`. Raises UnsupportedArchitecture when it cannot be used."""
    path = folder / "config.json"
    if not path.is_file():
        raise UnsupportedArchitecture(f"{folder} holds no config.json; give the folder of a Hugging Face model")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise UnsupportedArchitecture(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UnsupportedArchitecture(f"{path} is not JSON: {error}") from error
    return parse_config(values)


def parse_config(values: Any) -> PreTrainedConfig:
    """The config object for the parsed `config.json` of a manifest or folder.

    Raises:
        UnsupportedArchitecture: unknown `model_type`, a quantised checkpoint, or sizes beyond what a model can have.
    """
    if not isinstance(values, dict):
        raise UnsupportedArchitecture("config.json must be a JSON object")
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UnsupportedArchitecture(f"model_type {model_type!r} is unknown to the transformers installed here")
    if values.get("quantization_config") is not None:
        raise UnsupportedArchitecture("quantised checkpoints are not served; publish fp32, bf16 or fp16 safetensors")
    _check_layer_counts(values)
    try:
        config = CONFIG_MAPPING[model_type].from_dict(_without_untrusted_keys(values))
    except Exception as error:  # whatever a config class raises on values it does not expect
        raise UnsupportedArchitecture(f"config.json does not fit model_type {model_type!r}: {brief(error)}") from error
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedArchitecture(f"{model_type} is an encoder-decoder model; only decoder-only models have stages")
    for name, limit in _LIMITS.items():
        value = getattr(config.get_text_config(), name, None)
        if not isinstance(value, int) or not 0 < value <= limit:
            raise UnsupportedArchitecture(f"config.json: {name} is {value!r}, expected an integer in [1, {limit}]")
    return config


def _check_layer_counts(values: dict[str, Any]) -> None:
    """Config classes build lists as long as these numbers say, whatever their names, so they are bounded first."""
    for key, value in values.items():
        if isinstance(value, dict):
            _check_layer_counts(value)
        elif key.endswith(("layers", "n_layer")) and isinstance(value, int | float) and value > MAX_LAYERS:
            raise UnsupportedArchitecture(f"config.json: {key} is {value}, at most {MAX_LAYERS} is served")


def _without_untrusted_keys(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_untrusted_keys(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if not _is_untrusted(key)
    }


def _is_untrusted(key: str) -> bool:
    """Configs take any key as an attribute: none may name an implementation to load, or replace a method."""
    return key in _UNTRUSTED_KEYS or "implementation" in key or callable(getattr(PreTrainedConfig, key, None))
