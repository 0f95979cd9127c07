"""Proof, before a model is published, that its stages compute what the whole computes."""

import copy
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedConfig

from declai.worker.errors import WorkerError
from declai.worker.model.architecture import Architecture, inspect_architecture
from declai.worker.model.config import UnsupportedArchitecture, brief
from declai.worker.model.slicing import without_progress_bars
from declai.worker.model.stage import Stage

_NUM_PROMPT_TOKENS = 24
# The arithmetic is the same, so fp32 leaves differences near 1e-7 of the largest logit; a wrong split leaves 1e-1.
_MAX_RELATIVE_DIFFERENCE = 1e-4
_SHRUNK_VOCAB_SIZE = 512
_SHRUNK_WIDTH = 128


@dataclass(frozen=True)
class SplitReport:
    """How far the split model's logits are from the whole's, relative to the largest logit.

    `real_weights` is False when the weights did not fit in memory and a shrunk model of the same class was checked.
    """

    architecture: Architecture
    max_relative_difference: float
    real_weights: bool


def split_check(folder: Path, max_memory_bytes: int | None = None) -> SplitReport:
    """Run a prompt and one more token through the model of a Hugging Face folder, whole and one stage per layer.

    Args:
        folder: `config.json` and safetensors.
        max_memory_bytes: bound for the whole model in fp32; by default half of what is free.

    Raises:
        UnsupportedArchitecture: the two differ, or one of them does not run; the text gives the difference.
    """
    architecture = inspect_architecture(folder)
    limit = _free_memory_bytes() // 2 if max_memory_bytes is None else max_memory_bytes
    if _num_parameters(architecture.config) * 4 <= limit:
        return SplitReport(architecture, _relative_difference(folder, architecture), real_weights=True)
    shrunk = _shrunk(architecture.config)
    needed = _num_parameters(shrunk) * 4
    if needed > limit:
        raise UnsupportedArchitecture(f"checking the split needs {needed} bytes of memory, {limit} may be used")
    with tempfile.TemporaryDirectory() as scratch:
        _save_random_model(shrunk, Path(scratch))
        difference = _relative_difference(Path(scratch), inspect_architecture(Path(scratch)))
    return SplitReport(architecture, difference, real_weights=False)


def _relative_difference(folder: Path, architecture: Architecture) -> float:
    token_ids = torch.randint(
        architecture.vocab_size, (_NUM_PROMPT_TOKENS + 1,), generator=torch.Generator().manual_seed(0)
    )
    pieces = [token_ids[:-1], token_ids[-1:]]
    whole = _whole_logits(folder, pieces)
    try:
        split = _split_logits(folder, architecture, pieces)
    except Exception as error:  # what a model's own code raises when a part it needs is elsewhere
        raise UnsupportedArchitecture(
            f"{architecture.model_class.__name__} does not run layer by layer: {brief(error)}"
        ) from error
    difference = float((whole - split).abs().max() / whole.abs().max())
    if not difference <= _MAX_RELATIVE_DIFFERENCE:  # also refuses NaN
        raise UnsupportedArchitecture(
            f"{architecture.model_class.__name__} run layer by layer differs from the whole by {difference:.1e} of the "
            f"largest logit ({_MAX_RELATIVE_DIFFERENCE:.0e} is rounding): its layers share more than hidden states"
        )
    return difference


@torch.inference_mode()
def _whole_logits(folder: Path, pieces: list[torch.Tensor]) -> torch.Tensor:
    try:
        with without_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
        cache = DynamicCache(config=model.config)
        logits = [model(piece.unsqueeze(0), past_key_values=cache, use_cache=True).logits[0, -1] for piece in pieces]
    except Exception as error:  # a folder's content can be wrong in any way
        raise UnsupportedArchitecture(f"{folder} does not run as a whole: {brief(error)}") from error
    return torch.stack(logits)


def _split_logits(folder: Path, architecture: Architecture, pieces: list[torch.Tensor]) -> torch.Tensor:
    files = sorted(folder.glob("*.safetensors"))
    for index in range(architecture.num_layers):
        stage = Stage.load(architecture, index, index + 1, files)
        cache = stage.new_cache(_NUM_PROMPT_TOKENS + 1, _NUM_PROMPT_TOKENS)
        run = stage.forward_logits if stage.is_last else stage.forward
        pieces = [run(piece, cache) for piece in pieces]
    return torch.stack(pieces)


def _num_parameters(config: PreTrainedConfig) -> int:
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return sum(parameter.numel() for parameter in model.parameters())


def _shrunk(config: PreTrainedConfig) -> PreTrainedConfig:
    """The same class with few layers (one of each kind at least), few tokens and thin feed-forward parts."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    num_layers = text.num_hidden_layers
    per_layer = {
        name: value for name, value in vars(text).items() if isinstance(value, list) and len(value) == num_layers
    }
    kinds = [tuple(map(str, kind)) for kind in zip(*per_layer.values(), strict=True)] or [()] * num_layers
    kept = max(min(3, num_layers), *(kinds.index(kind) + 1 for kind in kinds))
    for name, value in per_layer.items():
        setattr(text, name, value[:kept])
    for name, value in vars(text).items():
        if name.endswith(("intermediate_size", "ffn_dim", "n_inner")) and isinstance(value, int):
            setattr(text, name, min(value, _SHRUNK_WIDTH))
        elif name.endswith("_token_id") and value is not None:
            setattr(text, name, 0)
    text.num_hidden_layers = kept
    text.vocab_size = min(text.vocab_size, _SHRUNK_VOCAB_SIZE)
    return config


def _save_random_model(config: PreTrainedConfig, folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        if parameter.ndim > 1:  # norms keep their ones
            parameter.data.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
    with without_progress_bars():
        model.save_pretrained(folder)


def _free_memory_bytes() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError) as error:
        raise WorkerError("the free memory of this machine is unknown; give max_memory_bytes") from error
