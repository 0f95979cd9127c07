"""A stage: the layers [first_layer, end_layer) of a model, run by transformers' own modules and forward."""

import time
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from declai.worker.model.architecture import Architecture, Shard
from declai.worker.model.cache import StageCache
from declai.worker.model.formats import fit
from declai.worker.model.layout import CacheLayout, make_layout
from declai.worker.model.memory import keep_freed_memory
from declai.worker.model.numeric import RESIDUAL_DTYPE, Numerics, numerics_of
from declai.worker.model.packed import PackedBatch, Pool, Segment, attach
from declai.worker.model.slicing import Seam, load_slice, stage_shards
from declai.worker.model.static_batch import StaticBatch
from declai.worker.model.trial import packs_as_alone

_NUM_TIMED_RUNS = 3


class Stage:
    """Layers [first_layer, end_layer) with their weights, on one device, in one numeric profile.

    With first_layer == 0 its input is token ids, otherwise hidden states; with end_layer == num_layers its output is
    logits, otherwise hidden states. Not thread-safe: one forward at a time.

    Attributes:
        dtype: of hidden states between layers and between stages: float32 in every profile.
        cache_dtype: of stored keys and values.
        windows: of every layer of the model, in tokens; None where there is none.
        packs: whether `forward_packed` computes the same as `forward`; a few architectures only run one by one.
    """

    def __init__(
        self,
        architecture: Architecture,
        first_layer: int,
        end_layer: int,
        model: PreTrainedModel,
        seam: Seam,
        numerics: Numerics,
        device: torch.device,
    ) -> None:
        self.architecture = architecture
        self.first_layer = first_layer
        self.end_layer = end_layer
        self.dtype = RESIDUAL_DTYPE
        self.cache_dtype = numerics.dtype
        self.device = device
        self._model = model
        self._base_model = model.get_submodule(architecture.base_model_path)
        self._seam = seam
        self._takes_position_ids = _accepts(self._base_model.forward, "position_ids")
        self._own_attention = model.config._attn_implementation
        self.windows = [layer.window for layer in architecture.layer_caches]
        attach(model, seam)
        self.packs = packs_as_alone(self)

    @property
    def is_first(self) -> bool:
        return self.first_layer == 0

    @property
    def is_last(self) -> bool:
        return self.end_layer == self.architecture.num_layers

    @property
    def shards(self) -> frozenset[Shard]:
        return stage_shards(self.architecture, self.first_layer, self.end_layer)

    @property
    def bytes_per_row(self) -> int:
        """The hidden state of one token, as it goes from stage to stage."""
        return self.architecture.hidden_size * self.dtype.itemsize

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of one token in all layers of the stage."""
        layers = self.architecture.layer_caches[self.first_layer : self.end_layer]
        return sum(layer.elements_per_token for layer in layers) * self.cache_dtype.itemsize

    def layout(self, max_step_tokens: int) -> CacheLayout:
        """How the stage's sequences lie in a pool, when they bring at most `max_step_tokens` each to one forward."""
        layers = self.architecture.layer_caches[self.first_layer : self.end_layer]
        return make_layout(layers, self.first_layer, self.cache_dtype.itemsize, max_step_tokens)

    @classmethod
    def load(
        cls,
        architecture: Architecture,
        first_layer: int,
        end_layer: int,
        tensor_files: Iterable[Path],
        profile: str = "fp32",
        device: torch.device | str = "cpu",
        linears: MutableMapping[str, nn.Module] | None = None,
    ) -> "Stage":
        """Load a stage from local safetensors files that hold (at least) the tensors of its shards, by original name.

        Embeddings stay memory-mapped, and so do weights that are in their profile's format already and are not laid
        out anew (`linears`). Other tensors in the files are not read.

        Args:
            linears: where stages of the same files, profile and device share the layers that were laid out anew.

        Raises:
            StageLoadError: a weight of the stage is absent, has another shape, or lies twice in the files.
            ValueError: the layer range is empty or outside the model, or the profile is unknown.
        """
        numerics, device = numerics_of(profile), torch.device(device)
        if not 0 <= first_layer < end_layer <= architecture.num_layers:
            raise ValueError(f"layers [{first_layer}, {end_layer}) of {architecture.num_layers} are no stage")
        shards = stage_shards(architecture, first_layer, end_layer)
        model, seam = load_slice(
            architecture, first_layer, end_layer, _read_tensors(architecture, shards, tensor_files), numerics
        )
        model.train(False)
        model.requires_grad_(False)
        fit(model, architecture.layers_path, numerics, device, {} if linears is None else linears)
        keep_freed_memory()
        return cls(architecture, first_layer, end_layer, model, seam, numerics, device)

    def measure_s_per_token(self) -> float:
        """Seconds of one decode forward. The runs before the timed one also bring mapped weights into memory."""
        shape = (1,) if self.is_first else (1, self.architecture.hidden_size)
        inputs = torch.zeros(shape, dtype=torch.long if self.is_first else self.dtype, device=self.device)
        cache = self.new_cache(_NUM_TIMED_RUNS + 1, 1)
        run = self.forward_logits if self.is_last else self.forward
        durations = []
        for _ in range(_NUM_TIMED_RUNS + 1):
            began = time.perf_counter()
            run(inputs, cache).cpu()
            durations.append(time.perf_counter() - began)
        return min(durations[1:])

    def new_cache(self, max_tokens: int, max_chunk_tokens: int) -> StageCache:
        """An empty cache for a sequence of at most `max_tokens`, fed at most `max_chunk_tokens` at a time."""
        layers = self.first_layer, self.end_layer
        return StageCache(self.architecture, *layers, max_tokens, max_chunk_tokens, self.cache_dtype)

    @torch.inference_mode()
    def forward(self, inputs: torch.Tensor, cache: StageCache) -> torch.Tensor:
        """Run the next tokens of one sequence through the layers; returns hidden states [tokens, hidden_size].

        `inputs` are token ids [tokens] (int64) at the first stage, hidden states [tokens, hidden_size] after it.
        """
        self._run_alone(self._base_model, inputs, cache)
        return self._seam.take_output()[0]

    @torch.inference_mode()
    def forward_logits(self, inputs: torch.Tensor, cache: StageCache) -> torch.Tensor:
        """As `forward`, at the last stage: the logits [vocab_size], float32, that follow the last of the tokens."""
        output = self._run_alone(self._model, inputs, cache, logits_to_keep=1)
        self._seam.take_output()
        logits: torch.Tensor = output.logits
        return logits[0, -1].float()

    @torch.inference_mode()
    def forward_packed(self, inputs: torch.Tensor, segments: Sequence[Segment], pool: Pool) -> torch.Tensor:
        """Run the next tokens of many sequences, laid end to end; returns hidden states [tokens, hidden_size].

        `inputs` as in `forward`. The sequences' keys and values are in `pool`, where their segments say.
        """
        self._run_packed(self._base_model, inputs, segments, pool)
        return self._seam.take_output()[0]

    @torch.inference_mode()
    def forward_packed_logits(
        self, inputs: torch.Tensor, segments: Sequence[Segment], pool: Pool, rows: Sequence[int]
    ) -> torch.Tensor:
        """As `forward_packed`, at the last stage: the logits [len(rows), vocab_size], float32, after these tokens."""
        kept = torch.tensor(rows, device=self.device)
        output = self._run_packed(self._model, inputs, segments, pool, logits_to_keep=kept)
        self._seam.take_output()
        logits: torch.Tensor = output.logits[0]
        if len(logits) != len(kept):  # a model without `logits_to_keep` gives them all
            logits = logits[kept]
        return logits.float()

    @torch.inference_mode()
    def forward_static(self, inputs: torch.Tensor, batch: StaticBatch) -> torch.Tensor:
        """As `forward_packed`, or at the last stage `forward_packed_logits` of all rows, in a shape of its own."""
        batch.begin()
        if not self.is_last:
            self._run_batch(self._base_model, inputs, batch)
            return self._seam.take_output()[0]
        output = self._run_batch(self._model, inputs, batch)
        self._seam.take_output()
        logits: torch.Tensor = output.logits[0]
        return logits.float()

    def _run_alone(self, module: nn.Module, inputs: torch.Tensor, cache: StageCache, **kwargs: Any) -> Any:
        self._attend_with(self._own_attention)
        positions = torch.arange(cache.num_tokens, cache.num_tokens + len(inputs), device=self.device)
        output = self._run(module, inputs, positions, past_key_values=cache, **kwargs)
        cache.advance(len(inputs))
        return output

    def _run_packed(
        self, module: nn.Module, inputs: torch.Tensor, segments: Sequence[Segment], pool: Pool, **kwargs: Any
    ) -> Any:
        batch = PackedBatch(pool, segments, self.windows, self.device, self.cache_dtype)
        return self._run_batch(module, inputs, batch, **kwargs)

    def _run_batch(
        self, module: nn.Module, inputs: torch.Tensor, batch: PackedBatch | StaticBatch, **kwargs: Any
    ) -> Any:
        self._attend_with(batch.attention)
        self._seam.batch = batch
        try:
            return self._run(module, inputs, batch.positions, past_key_values=batch, **kwargs)
        finally:
            self._seam.batch = None

    def _run(self, module: nn.Module, inputs: torch.Tensor, positions: torch.Tensor, **kwargs: Any) -> Any:
        batch = inputs.unsqueeze(0)
        if self.is_first:
            kwargs["input_ids"] = batch
        else:
            kwargs["inputs_embeds"] = batch
            self._seam.received = batch
        if self._takes_position_ids:
            kwargs["position_ids"] = positions.unsqueeze(0)
        output = module(use_cache=True, return_dict=True, **kwargs)
        self._seam.received = None
        return output

    def _attend_with(self, implementation: str) -> None:
        config = self._model.config
        if config._attn_implementation != implementation:
            config._attn_implementation = implementation


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


def _accepts(function: Callable[..., Any], parameter: str) -> bool:
    return parameter in signature(function).parameters
