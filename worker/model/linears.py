"""Linear layers that multiply in their profile's format, whatever they are given, and return float32.

On the CPU weights are laid out for the fastest kernel that torch has. For fp32 and bf16 that is oneDNN's with
prepacked weights. Compared with the BLAS that torch was built with, it is as fast or twice as fast for one row, and two
to six times as fast for a few rows. A decode step has as many rows as there are sequences.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from declai.worker.model.numeric import RESIDUAL_DTYPE, Numerics
from declai.worker.model.quantised import COMPUTE_DTYPE, IntWeights, multiply_in_blocks, quantise

# The layout that fits this many rows fits all numbers of them (measured from 1 to 512).
_ROWS_TO_PACK_FOR = 8
# Processors without float16 arithmetic take a row or two as it is; from then on, widening the weights is faster.
_MOST_ROWS_FP16 = 2


class Linear(nn.Module):
    """Computes x W^T + b for x [..., in_features]. Takes the place of the layer whose weight it is made from."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` [out_features, in_features]; subclasses keep it in their format."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        # Models ask the weight for its dtype; there is nothing else to be had from it.
        self.weight = nn.Parameter(torch.empty_like(weight, dtype=RESIDUAL_DTYPE, device="meta"), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.to(RESIDUAL_DTYPE, copy=True), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = self.multiply(x.reshape(-1, self.in_features)).to(RESIDUAL_DTYPE)
        product = product.view(*x.shape[:-1], self.out_features)
        return product if self.bias is None else product + self.bias

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """x W^T for x [rows, in_features] in any format, in any format."""
        raise NotImplementedError


class PackedLinear(Linear):
    """fp32 or bf16 on the CPU, copied into oneDNN's layout."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__(weight, bias)
        self._dtype = dtype
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), _ROWS_TO_PACK_FOR)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(self._dtype)
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")
        return product


class PlainLinear(Linear):
    """Any float on any device; a weight that is in its format already stays where it lies, in its file perhaps."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(weight, bias)
        self.weight = nn.Parameter(weight.to(device, dtype), requires_grad=False)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        x = x.to(weight.dtype)
        if weight.dtype == torch.float16 and weight.device.type == "cpu" and len(x) > _MOST_ROWS_FP16:
            return multiply_in_blocks(x.float(), weight)
        return functional.linear(x, weight)


class IntLinear(Linear):
    """Weights kept as integers."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, weights: IntWeights) -> None:
        super().__init__(weight, bias)
        self._weights = weights

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        return self._weights.multiply(x.to(COMPUTE_DTYPE))


def linear_for(numerics: Numerics, device: torch.device, weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    """The layer for a weight [out_features, in_features] and its bias, to compute on `device`."""
    if numerics.weight_bits is not None:
        return IntLinear(weight, bias, quantise(weight, numerics.weight_bits, device))
    if device.type == "cpu" and _can_pack(numerics.dtype):
        return PackedLinear(weight, bias, numerics.dtype)
    return PlainLinear(weight, bias, numerics.dtype, device)


def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of torch has oneDNN, and this processor what oneDNN needs for the format."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32
