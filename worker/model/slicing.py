"""Cuts a slice of decoder layers out of a transformers model without ever holding the rest in memory.

The whole model is built without memory; then everything outside the slice is hollowed out. Layers keep their true
index and the model its true config, so masks, rotary embeddings and layer types are those of the whole model:
- what runs before the slice (embedding side, earlier layers) answers with the hidden states that were received;
- what runs after it (later layers, head side) hands on what it is given.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from declai.worker.errors import WorkerError
from declai.worker.model.architecture import Architecture, Shard
from declai.worker.model.formats import declare_dtypes
from declai.worker.model.numeric import RESIDUAL_DTYPE, Numerics
from declai.worker.model.packed import PackedBatch
from declai.worker.model.static_batch import StaticBatch


class StageLoadError(WorkerError):
    """The shards given do not hold exactly the weights of the stage."""


def stage_shards(architecture: Architecture, first_layer: int, end_layer: int) -> frozenset[Shard]:
    """The shards that a stage needs."""
    shards: set[Shard] = set(range(first_layer, end_layer))
    if first_layer == 0:
        shards.add("embedding")
    if end_layer == architecture.num_layers:
        shards.add("head")
    return frozenset(shards)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing on the terminal: whoever loads a model shows progress in its own way."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class Seam:
    """Where a slice was cut out: holds what comes in and what goes out during one forward, and what it is about."""

    def __init__(self, layer_output_length: int | None) -> None:
        self.received: torch.Tensor | None = None
        self.batch: PackedBatch | StaticBatch | None = None
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


def load_slice(
    architecture: Architecture,
    first_layer: int,
    end_layer: int,
    tensors: dict[str, torch.Tensor],
    numerics: Numerics,
) -> tuple[PreTrainedModel, Seam]:
    """Build the slice and let transformers load the tensors: it renames, fuses, converts, ties, computes buffers.

    Weights that `formats.fit` will convert are loaded as they are stored.

    Raises:
        StageLoadError: a weight of the slice is absent or has another shape.
    """
    seam = Seam(architecture.layer_output_length)
    whole_class = architecture.model_class
    stored = max(tensors.values(), key=lambda tensor: tensor.nbytes).dtype if tensors else RESIDUAL_DTYPE
    # Experts in integers are widened one at a time, as transformers' plain implementation asks for them.
    experts = {"experts_implementation": "eager"} if numerics.weight_bits else {}

    class Sliced(whole_class):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            _hollow_out(self, seam, architecture, first_layer, end_layer)
            declare_dtypes(self, stored, numerics)

    # transformers looks up weight conversions by class name, and custom code by module name.
    Sliced.__name__, Sliced.__qualname__ = whole_class.__name__, whole_class.__qualname__
    Sliced.__module__ = whole_class.__module__
    try:
        with without_progress_bars():
            model, report = Sliced.from_pretrained(
                None,
                config=architecture.config,
                state_dict=tensors,
                dtype=RESIDUAL_DTYPE,
                output_loading_info=True,
                **experts,
            )
    except RuntimeError as error:  # transformers raises it for mismatched shapes
        raise StageLoadError(f"layers [{first_layer}, {end_layer}): {error}") from error
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        if report[kind]:
            raise StageLoadError(f"layers [{first_layer}, {end_layer}): {kind} {sorted(map(str, report[kind]))[:4]}")
    return model, seam


def _hollow_out(
    model: PreTrainedModel, seam: Seam, architecture: Architecture, first_layer: int, end_layer: int
) -> None:
    """Free everything outside the slice of its weights and of its work."""
    shards = stage_shards(architecture, first_layer, end_layer)
    layer_list = model.get_submodule(architecture.layers_path)
    layer_list.__class__ = _LayerList
    layers = list(layer_list.children())
    for index, layer in enumerate(layers):
        if index < first_layer:
            _replace(layer, seam.layer_answer_received)
        elif index >= end_layer:
            _replace(layer, seam.layer_hand_on)
    layers[end_layer - 1].register_forward_hook(seam.keep_output)
    for path in architecture.unused:
        _replace(model.get_submodule(path), seam.hand_on)

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
            module.forward = seam.answer_received if side == "embedding" else seam.hand_on
            module._buffers.clear()
            module._non_persistent_buffers_set.clear()
    for module in model.modules():
        # All weights come from the files; what is left for transformers to initialise are the buffers that do not.
        module.__dict__["_is_hf_initialized"] = not module._non_persistent_buffers_set
    held = set(model.state_dict())
    model.all_tied_weights_keys = {
        target: source for target, source in model.all_tied_weights_keys.items() if {target, source} <= held
    }


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
    module._non_persistent_buffers_set.clear()
    for tensors in (module._parameters, module._buffers):
        for name in tensors:
            tensors[name] = None
    module.forward = forward
