"""Whether a model computes in one batch what it computes one by one: found out, not known by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from declai.worker.model.architecture import Architecture
from declai.worker.model.cache import StageCache
from declai.worker.model.layout import CacheLayout, Lane
from declai.worker.model.packed import Pool, Segment

# Two sequences, and where the keys of a layer lie: neither in order nor in one piece.
_RUNS = (((9, 2), (3, 3)), ((12, 3),))
_LENGTHS = (5, 3)
_NUM_SLOTS = 15
# Rounding, not a difference in what is computed: a token that attends to another sequence's keys is off by much more.
_MAX_DIFFERENCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class OnTrial(Protocol):
    """What a trial needs of a stage."""

    architecture: Architecture
    device: torch.device
    dtype: torch.dtype
    cache_dtype: torch.dtype

    @property
    def is_first(self) -> bool: ...
    def new_cache(self, max_tokens: int, max_chunk_tokens: int) -> StageCache: ...
    def layout(self, max_step_tokens: int) -> CacheLayout: ...
    def forward(self, inputs: torch.Tensor, cache: StageCache) -> torch.Tensor: ...
    def forward_packed(self, inputs: torch.Tensor, segments: Sequence[Segment], pool: Pool) -> torch.Tensor: ...


def packs_as_alone(stage: OnTrial) -> bool:
    """Run two sequences in one batch, and each alone: prompt first, then one more token."""
    kinds = getattr(stage.architecture.config.get_text_config(), "layer_types", None) or ()
    if "chunked_attention" in kinds:
        return False  # its windows jump, but further on than a trial goes
    pieces = [_inputs(stage, seed, length) for seed, length in enumerate(_LENGTHS)]
    try:
        alone = torch.cat([_alone(stage, piece) for piece in pieces])
        together = torch.cat(_together(stage, pieces))
    except Exception:  # a model that needs what a batch does not have raises what it likes
        return False
    difference = (alone - together).abs().max() / alone.abs().max()
    return bool(difference <= _MAX_DIFFERENCE[stage.cache_dtype])  # NaN is no proof


def _inputs(stage: OnTrial, seed: int, num_tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if stage.is_first:
        return torch.randint(stage.architecture.vocab_size, (num_tokens,), generator=generator).to(stage.device)
    rows = torch.randn(num_tokens, stage.architecture.hidden_size, generator=generator)
    return rows.to(stage.device, stage.dtype)


def _alone(stage: OnTrial, piece: torch.Tensor) -> torch.Tensor:
    cache = stage.new_cache(len(piece), len(piece))
    return torch.cat([stage.forward(part, cache) for part in (piece[:-1], piece[-1:])])


def _together(stage: OnTrial, pieces: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Hidden states of all tokens of each piece."""
    layout = stage.layout(max(_LENGTHS))
    num_lanes = sum(group.num_lanes for group in layout.groups)
    pool = Pool(layout, num_lanes * _NUM_SLOTS)
    lanes = [
        tuple(Lane(tuple((slot + lane * _NUM_SLOTS, count) for slot, count in runs)) for lane in range(num_lanes))
        for runs in _RUNS
    ]
    prompts = [Segment(0, len(piece) - 1, own) for piece, own in zip(pieces, lanes, strict=True)]
    last = [Segment(len(piece) - 1, 1, own) for piece, own in zip(pieces, lanes, strict=True)]
    first_rows = stage.forward_packed(torch.cat([piece[:-1] for piece in pieces]), prompts, pool)
    last_rows = stage.forward_packed(torch.cat([piece[-1:] for piece in pieces]), last, pool)
    parts = zip(torch.split(first_rows, [len(piece) - 1 for piece in pieces]), torch.split(last_rows, 1), strict=True)
    return [torch.cat(rows) for rows in parts]
