"""Matrices kept as integers: 8 bits with a scale per row, or 4 bits with a scale and an offset per 32 weights.

Made from the published weights with single, correctly rounded IEEE operations on the CPU, so that every machine gets
the same bits from the same shard.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch.nn import functional

COMPUTE_DTYPE = torch.bfloat16
GROUP = 32
_MIDDLE, _HIGHEST = 8, 15  # of the levels of 4 bits
# torch's kernel for 8 bits wins up to so many rows of input; for more, widening the weights and oneDNN does.
_MOST_ROWS_INT8 = 16
_ROWS_IN_BLOCK = 256


class IntWeights(Protocol):
    """Weights [..., rows, columns]."""

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """x W^T for x [tokens, columns] in bfloat16; a matrix only."""


class Int8Weights:
    """8 bits each. An index gives weights as bfloat16."""

    def __init__(self, weights: torch.Tensor, device: torch.device) -> None:
        wide = weights.float().contiguous()
        lowest, highest = wide.aminmax(dim=-1, keepdim=True)
        scales = torch.maximum(-lowest, highest) / 127
        scales = torch.where(scales > 0, scales, torch.ones_like(scales))
        self._values = (wide / scales).round_().to(torch.int8).to(device)
        self._scales = scales.to(device)
        # The kernel takes scales in bfloat16 alone, which would be off by up to 0.4 %: it is given none.
        self._no_scales = torch.ones(weights.shape[:-1], dtype=COMPUTE_DTYPE)
        self._most_kernel_rows = _MOST_ROWS_INT8 if _fits_kernels(weights) else 0

    def __getitem__(self, index: Any) -> torch.Tensor:
        return (self._values[index] * self._scales[index]).to(COMPUTE_DTYPE)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        if self._values.device.type != "cpu":
            return functional.linear(x, self[:])
        if len(x) <= self._most_kernel_rows:
            product = torch._weight_int8pack_mm(x, self._values, self._no_scales)
        else:
            product = multiply_in_blocks(x, self._values)
        return product * self._scales[..., 0]


class Int4Weights:
    """4 bits each, 5 with what belongs to their groups: (level - 8) * scale + offset, level in [0, 15].

    An index gives weights as bfloat16.
    """

    def __init__(self, weights: torch.Tensor, device: torch.device) -> None:
        levels, scales = _levels(weights)
        self._pairs = (levels[..., ::2] | levels[..., 1::2] << 4).to(device)
        self._scales = scales.to(device)

    def __getitem__(self, index: Any) -> torch.Tensor:
        pairs, scales = self._pairs[index], self._scales[index].float()
        levels = _in_groups(torch.stack((pairs & _HIGHEST, pairs >> 4), dim=-1).flatten(-2))
        wide: torch.Tensor = (levels.float() - _MIDDLE) * scales[..., :1] + scales[..., 1:]
        return wide.flatten(-2).to(COMPUTE_DTYPE)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self[:])


class PackedInt4Weights:
    """A matrix of the same 4 bits, laid out for torch's kernel on the CPU."""

    def __init__(self, weights: torch.Tensor) -> None:
        levels, scales = _levels(weights)
        self._packed = torch._convert_weight_to_int4pack_for_cpu(levels.to(torch.int32), 1)
        self._scales = scales.transpose(0, 1).contiguous()

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        return torch._weight_int4pack_mm_for_cpu(x, self._packed, GROUP, self._scales)


def quantise(weights: torch.Tensor, num_bits: int, device: torch.device) -> IntWeights:
    """A matrix in `num_bits`, or in 8 where its sides are not the multiples that 4 bits take."""
    if num_bits == 8 or not _fits_kernels(weights):
        return Int8Weights(weights, device)
    return PackedInt4Weights(weights) if device.type == "cpu" else Int4Weights(weights, device)


def quantise_stack(weights: torch.Tensor, num_bits: int, device: torch.device) -> Int8Weights | Int4Weights:
    """A stack of matrices of which one at a time is widened: an index gives it as bfloat16."""
    if num_bits == 8 or weights.shape[-1] % GROUP:
        return Int8Weights(weights, device)
    return Int4Weights(weights, device)


def multiply_in_blocks(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """x W^T with the weights widened to the format of x a block at a time, so that it stays in the cache."""
    begins = range(0, len(weights), _ROWS_IN_BLOCK)
    blocks = (weights[begin : begin + _ROWS_IN_BLOCK].to(x.dtype) for begin in begins)
    return torch.cat([functional.linear(x, block) for block in blocks], dim=-1)


def _in_groups(rows: torch.Tensor) -> torch.Tensor:
    """[..., columns] as [..., groups, 32]."""
    return rows.reshape(*rows.shape[:-1], -1, GROUP)


def _fits_kernels(weights: torch.Tensor) -> bool:
    """torch's kernels for integers on the CPU have no tails: on other sizes they read past the end."""
    return weights.shape[-2] % 16 == 0 and weights.shape[-1] % GROUP == 0


def _levels(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Levels, uint8 [..., rows, columns], and scale and offset of their groups, bfloat16 [..., rows, groups, 2].

    A level is the nearest to its weight under the rounded scale and offset.
    """
    groups = _in_groups(weights.float())
    lowest, highest = groups.aminmax(dim=-1, keepdim=True)
    scales = ((highest - lowest) / _HIGHEST).to(COMPUTE_DTYPE)
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    offsets = (lowest + _MIDDLE * scales.float()).to(COMPUTE_DTYPE)
    levels = (groups - offsets.float()).div_(scales.float()).add_(_MIDDLE).round_().clamp_(0, _HIGHEST)
    return levels.flatten(-2).to(torch.uint8), torch.cat((scales, offsets), dim=-1)
