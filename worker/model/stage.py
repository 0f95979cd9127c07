"""A stage: the layers [first_layer, end_layer) of a model, run by transformers' own modules and forward.

The whole model is built without memory; then everything outside the slice is hollowed out. Layers keep their true
index and the model its true config, so masks, rotary embeddings and layer types are those of the whole model:
- what runs before the slice (embedding side, earlier layers) answers with the hidden states that were received;
- what runs after it (later layers, head side) hands on what it is given.
"""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from worker.errors import WorkerError
from worker.model.architecture import Architecture, Shard
from worker.model.cache import StageCache


class StageLoadError(WorkerError):
    """The shards given do not hold exactly the weights of the stage."""


class Stage:
    """Layers [first_layer, end_layer) with their weights, on one device, in one dtype.

    With first_layer == 0 its input is token ids, otherwise hidden states; with end_layer == num_layers its output is
    logits, otherwise hidden states. Not thread-safe: one forward at a time.
    """

    def __init__(self, architecture: Architecture, first_layer: int, end_layer: int, model: PreTrainedModel) -> None:
        self.architecture = architecture
        self.first_layer = first_layer
        self.end_layer = end_layer
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = next(model.parameters()).device
        self._model = model
        self._base_model = model.base_model
        self._slice = cast(_Slice, model.declai_slice)
        self._takes_position_ids = _accepts(self._base_model.forward, "position_ids")

    @property
    def is_first(self) -> bool:
        return self.first_layer == 0

    @property
    def is_last(self) -> bool:
        return self.end_layer == self.architecture.num_layers

    @property
    def shards(self) -> frozenset[Shard]:
        return stage_shards(self.architecture, self.first_layer, self.end_layer)

    @classmethod
    def load(
        cls,
        architecture: Architecture,
        first_layer: int,
        end_layer: int,
        tensor_files: Iterable[Path],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> "Stage":
        """Load a stage from local safetensors files that hold (at least) the tensors of its shards, by original name.

        Weights already in `dtype` stay memory-mapped; others are converted. Other tensors in the files are not read.

        Raises:
            StageLoadError: a weight of the stage is absent, has another shape, or lies twice in the files.
            ValueError: the layer range is empty or outside the model.
        """
        if not 0 <= first_layer < end_layer <= architecture.num_layers:
            raise ValueError(f"layers [{first_layer}, {end_layer}) of {architecture.num_layers} are no stage")
        tensors = _read_tensors(architecture, stage_shards(architecture, first_layer, end_layer), tensor_files)
        model = _load_slice(architecture, first_layer, end_layer, tensors, dtype)
        model.train(False)
        model.requires_grad_(False)
        nn.Module.to(model, device)
        return cls(architecture, first_layer, end_layer, model)

    def new_cache(self, max_tokens: int, max_chunk_tokens: int) -> StageCache:
        """An empty cache for a session of at most `max_tokens`, fed at most `max_chunk_tokens` at a time."""
        return StageCache(self.architecture, self.first_layer, self.end_layer, max_tokens, max_chunk_tokens)

    @torch.inference_mode()
    def forward(self, inputs: torch.Tensor, cache: StageCache) -> torch.Tensor:
        """Run the next tokens of one session through the layers; returns hidden states [tokens, hidden_size].

        `inputs` are token ids [tokens] (int64) at the first stage, hidden states [tokens, hidden_size] after it.
        """
        self._run(self._base_model, inputs, cache)
        hidden = self._slice.take_output()
        return hidden[0]

    @torch.inference_mode()
    def forward_logits(self, inputs: torch.Tensor, cache: StageCache) -> torch.Tensor:
        """As `forward`, at the last stage: the logits [vocab_size], float32, that follow the last of the tokens."""
        output = self._run(self._model, inputs, cache, logits_to_keep=1)
        self._slice.take_output()
        logits: torch.Tensor = output.logits
        return logits[0, -1].float()

    def _run(self, module: nn.Module, inputs: torch.Tensor, cache: StageCache, **kwargs: Any) -> Any:
        num_new, first = inputs.shape[0], cache.num_tokens
        batch = inputs.unsqueeze(0)
        if self.is_first:
            kwargs["input_ids"] = batch
        else:
            kwargs["inputs_embeds"] = batch
            self._slice.received = batch
        if self._takes_position_ids:
            kwargs["position_ids"] = torch.arange(first, first + num_new, device=self.device).unsqueeze(0)
        output = module(past_key_values=cache, use_cache=True, return_dict=True, **kwargs)
        self._slice.received = None
        cache.advance(num_new)
        return output


def stage_shards(architecture: Architecture, first_layer: int, end_layer: int) -> frozenset[Shard]:
    """The shards that a stage needs."""
    shards: set[Shard] = set(range(first_layer, end_layer))
    if first_layer == 0:
        shards.add("embedding")
    if end_layer == architecture.num_layers:
        shards.add("head")
    return frozenset(shards)


class _Slice:
    """What passes between the hollow parts of one model during one forward."""

    def __init__(self, layer_output_length: int | None) -> None:
        self.received: torch.Tensor | None = None
        self._output: torch.Tensor | None = None
        self._layer_output_length = layer_output_length

    def take_output(self) -> torch.Tensor:
        output, self._output = self._output, None
        assert output is not None
        return output

    def answer_received(self, *args: Any, **kwargs: Any) -> Any:
        return self.received

    def layer_answer_received(self, *args: Any, **kwargs: Any) -> Any:
        return self._as_layer_output(self.received)

    def hand_on(self, *args: Any, **kwargs: Any) -> Any:
        return _hidden_argument(args, kwargs)

    def layer_hand_on(self, *args: Any, **kwargs: Any) -> Any:
        return self._as_layer_output(_hidden_argument(args, kwargs))

    def keep_output(self, module: nn.Module, args: Any, output: Any) -> None:
        self._output = output[0] if isinstance(output, tuple) else output

    def _as_layer_output(self, hidden: Any) -> Any:
        if self._layer_output_length is None:
            return hidden
        return (hidden, *[None] * (self._layer_output_length - 1))


def _hidden_argument(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else kwargs["hidden_states"]


def _hollow_out(model: PreTrainedModel, architecture: Architecture, first_layer: int, end_layer: int) -> None:
    """Free everything outside the slice of its weights and of its work, and remember the slice on the model."""
    parts = _Slice(architecture.layer_output_length)
    shards = stage_shards(architecture, first_layer, end_layer)
    layer_list = model.get_submodule(architecture.layers_path)
    layer_list.__class__ = _LayerList
    layers = list(layer_list.children())
    for index, layer in enumerate(layers):
        if index < first_layer:
            _replace(layer, parts.layer_answer_received)
        elif index >= end_layer:
            _replace(layer, parts.layer_hand_on)
    layers[end_layer - 1].register_forward_hook(parts.keep_output)

    for path, module in model.named_modules():
        if path.startswith(f"{architecture.layers_path}."):
            continue
        prefix = f"{path}." if path else ""
        names = [name for name in (*module._parameters, *module._buffers) if f"{prefix}{name}" in architecture.owners]
        for name in names:
            # A tied weight stays with both of its names, so that transformers can tie them: they share one memory.
            if shards.isdisjoint(architecture.owners[f"{prefix}{name}"]):
                setattr(module, name, None)
        side = architecture.sides.get(path)
        if names and side not in shards:
            module.forward = parts.answer_received if side == "embedding" else parts.hand_on
            module.__dict__["_is_hf_initialized"] = True
    held = set(model.state_dict())
    model.all_tied_weights_keys = {
        target: source for target, source in model.all_tied_weights_keys.items() if {target, source} <= held
    }
    object.__setattr__(model, "declai_slice", parts)


class _LayerList(nn.ModuleList):
    """A list of layers that answers `layers[:num_layers]` with itself: many models take that slice in every forward,
    and torch would build and register a new list of modules each time (0.1 ms for 12 layers).
    """

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) and index.indices(len(self)) == (0, len(self), 1):
            return self
        return super().__getitem__(index)


def _replace(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Empty a module of weights and children but keep its plain attributes, which the base model may read."""
    module._modules.clear()
    for tensors in (module._parameters, module._buffers):
        for name in tensors:
            tensors[name] = None
    module.forward = forward
    module.__dict__["_is_hf_initialized"] = True


def _read_tensors(
    architecture: Architecture, shards: frozenset[Shard], tensor_files: Iterable[Path]
) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in tensor_files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if not shards.isdisjoint(architecture.shard_of(name)):
                    tensors.setdefault(name, file.get_tensor(name))
    return tensors


def _load_slice(
    architecture: Architecture,
    first_layer: int,
    end_layer: int,
    tensors: dict[str, torch.Tensor],
    dtype: torch.dtype,
) -> PreTrainedModel:
    """Let transformers load the tensors itself: it renames, fuses, converts, ties, and computes buffers."""
    whole_class = architecture.model_class

    class Sliced(whole_class):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            _hollow_out(self, architecture, first_layer, end_layer)

    # transformers looks up weight conversions by class name, and custom code by module name.
    Sliced.__name__, Sliced.__qualname__ = whole_class.__name__, whole_class.__qualname__
    Sliced.__module__ = whole_class.__module__
    try:
        model, report = Sliced.from_pretrained(
            None, config=architecture.config, state_dict=tensors, dtype=dtype, output_loading_info=True
        )
    except RuntimeError as error:  # transformers raises it for mismatched shapes
        raise StageLoadError(f"layers [{first_layer}, {end_layer}): {error}") from error
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        if report[kind]:
            raise StageLoadError(f"layers [{first_layer}, {end_layer}): {kind} {sorted(map(str, report[kind]))[:4]}")
    loaded: PreTrainedModel = model
    return loaded


def _accepts(function: Callable[..., Any], parameter: str) -> bool:
    return parameter in signature(function).parameters
