"""What any decoder-only architecture is made of, found from its config alone, without memory for its weights.

One tiny forward over meta tensors shows the order in which modules are called: what runs before the first decoder
layer is the embedding side, what runs after the last one is the head side. No architecture is known by name.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from declai.worker.model.config import UnsupportedArchitecture, brief, read_config
from declai.worker.model.trace import NUM_PROBE_TOKENS, Side, Trace

Shard = Side | int


@dataclass(frozen=True)
class LayerCache:
    """What one decoder layer keeps per token: the numbers of its keys and values together, and its window in tokens."""

    elements_per_token: int
    window: int | None


@dataclass(frozen=True, eq=False)
class Architecture:
    """The parts of one model class under one config.

    Attributes:
        layers_path: dotted name of the ModuleList of decoder layers inside the causal language model.
        layer_output_length: length of the tuple a layer returns, or None when it returns a tensor.
        sides: which side each module that owns weights outside the layers runs on; modules never run are absent.
        unused: the outermost parts with weights of which nothing runs on text alone (a vision tower, say).
        owners: the shards that need each parameter or persistent buffer, under transformers' own names.
        max_positions: the longest context for which positions are defined, or None when any length is.
    """

    config: PreTrainedConfig
    model_class: type[PreTrainedModel]
    num_layers: int
    hidden_size: int
    vocab_size: int
    max_positions: int | None
    layers_path: str
    layer_output_length: int | None
    layer_caches: tuple[LayerCache, ...]
    sides: dict[str, Side]
    unused: tuple[str, ...]
    owners: dict[str, tuple[Shard, ...]]
    _renamings: list[WeightRenaming] = field(repr=False)
    _converters: list[WeightConverter] = field(repr=False)

    @property
    def base_model_path(self) -> str:
        """Dotted name of the model without its head: the part of the causal language model that holds the layers."""
        return self.layers_path.split(".")[0]

    def shard_of(self, tensor_name: str) -> list[Shard]:
        """The shards that need a checkpoint's tensor, by the name it has in the file; [] when the model never uses it.

        Names go through the same renaming as in `from_pretrained`, so older and per-expert layouts are understood.
        """
        name, _ = rename_source_key(
            tensor_name, self._renamings, self._converters, self.model_class.base_model_prefix, self.owners
        )
        if name not in self.owners and tensor_name in self.owners:
            name = tensor_name
        return list(self.owners.get(name, ()))


def inspect_architecture(source: PreTrainedConfig | Path) -> Architecture:
    """Find the parts of a model from its config (or from the folder of a Hugging Face model).

    Raises:
        UnsupportedArchitecture: the model cannot be cut between its decoder layers; the text says why.
    """
    config = read_config(source) if isinstance(source, Path) else source
    model = _build_on_meta(config)
    text_config = config.get_text_config()
    trace = Trace(model, text_config.num_hidden_layers)
    cache = _run_tiny_forward(model, trace)
    layers_path = trace.layers_path()
    sides = trace.sides(layers_path)
    return Architecture(
        config=config,
        model_class=type(model),
        num_layers=text_config.num_hidden_layers,
        hidden_size=trace.hidden_size(layers_path),
        vocab_size=text_config.vocab_size,
        max_positions=_max_positions(text_config),
        layers_path=layers_path,
        layer_output_length=trace.output_length(layers_path),
        layer_caches=_layer_caches(cache, text_config.num_hidden_layers),
        sides=sides,
        unused=trace.unused(),
        owners=_owners(model, layers_path, sides),
        **_conversions(model),
    )


def _build_on_meta(config: PreTrainedConfig) -> PreTrainedModel:
    try:
        # bf16, because the fused expert kernels refuse fp32 meta tensors; only shapes are read from this model.
        with torch.device("meta"):
            model = cast(
                PreTrainedModel,
                AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                    config, dtype=torch.bfloat16, trust_remote_code=False
                ),
            )
    except Exception as error:
        raise UnsupportedArchitecture(
            f"{config.model_type} cannot be built as a causal language model: {brief(error)}"
        ) from error
    model.train(False)
    return model


def _run_tiny_forward(model: PreTrainedModel, trace: Trace) -> DynamicCache:
    token_ids = torch.zeros(1, NUM_PROBE_TOKENS, dtype=torch.long, device="meta")
    try:
        cache = DynamicCache(config=model.config)
        with torch.inference_mode(), trace.recording():
            model(input_ids=token_ids, past_key_values=cache, use_cache=True)
    except Exception as error:  # architectures fail in their own ways on meta tensors; each is a reason to refuse
        raise UnsupportedArchitecture(
            f"{type(model).__name__} does not run from its config alone: {brief(error)}"
        ) from error
    return cache


def _layer_caches(cache: DynamicCache, num_layers: int) -> tuple[LayerCache, ...]:
    if len(cache.layers) != num_layers:
        raise UnsupportedArchitecture(f"{num_layers} decoder layers, but the cache has {len(cache.layers)} entries")
    caches = []
    for index, layer in enumerate(cache.layers):
        # Exact classes: their subclasses keep more than keys and values.
        plain = type(layer) in (DynamicLayer, DynamicSlidingWindowLayer)
        if not plain or not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
            raise UnsupportedArchitecture(
                f"layer {index} keeps {type(layer).__name__} instead of its own keys and values per token "
                "(recurrent, shared or indexed state cannot be cut into stages)"
            )
        num_tokens = layer.keys.shape[-2]
        caches.append(
            LayerCache(
                elements_per_token=(layer.keys.numel() + layer.values.numel()) // num_tokens,
                window=getattr(layer, "sliding_window", None),
            )
        )
    return tuple(caches)


def _owners(model: PreTrainedModel, layers_path: str, sides: dict[str, Side]) -> dict[str, tuple[Shard, ...]]:
    owners: dict[str, tuple[Shard, ...]] = {}
    for name in model.state_dict():
        if name.startswith(f"{layers_path}."):
            owners[name] = (int(name.removeprefix(f"{layers_path}.").split(".", 1)[0]),)
        elif (side := sides.get(name.rpartition(".")[0])) is not None:
            owners[name] = (side,)
        else:
            owners[name] = ()
    # A checkpoint holds a tied weight under either of its names, so both names go to both sides.
    for target, source in model.all_tied_weights_keys.items():
        both = tuple(dict.fromkeys(owners.get(source, ()) + owners.get(target, ())))
        owners[source] = owners[target] = both
    return owners


def _conversions(model: PreTrainedModel) -> dict[str, Any]:
    conversions = get_model_conversion_mapping(model)
    return {
        "_renamings": [entry for entry in conversions if isinstance(entry, WeightRenaming)],
        "_converters": [entry for entry in conversions if isinstance(entry, WeightConverter)],
    }


def _max_positions(text_config: PreTrainedConfig) -> int | None:
    """Past the original length, "longrope" changes the rotation of all earlier tokens, which a cache cannot follow."""
    lengths = [getattr(text_config, "max_position_embeddings", None)]
    rope = getattr(text_config, "rope_parameters", None)
    if isinstance(rope, dict) and rope.get("rope_type") == "longrope":
        lengths.append(rope.get("original_max_position_embeddings"))
        lengths.append(getattr(text_config, "original_max_position_embeddings", None))
    return min((length for length in lengths if isinstance(length, int) and length > 0), default=None)
