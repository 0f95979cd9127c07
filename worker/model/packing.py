"""Linear layers on the CPU with their weights laid out as oneDNN's kernels want them.

torch hands a linear layer of fp32 to the BLAS it was built with; that one is slow for few rows on many CPUs, and a
decode step has as many rows as there are sessions. oneDNN with prepacked weights is as fast for one row and two to
six times as fast for the others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

# The layout that fits this many rows fits all numbers of them (measured from 1 to 512).
_ROWS_TO_PACK_FOR = 8


class PackedLinear(nn.Module):
    """Computes x W^T + b for x [..., in_features]. Takes the place of the layer whose weight it is made from."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` [out_features, in_features] is copied into the other layout and not kept."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        # Models ask the weight for its dtype; there is nothing else to be had from it.
        self.weight = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
        self.bias = bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS_TO_PACK_FOR)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return product


def pack_linears(model: nn.Module) -> None:
    """Replace the linear layers of an fp32 model on the CPU, where this build of torch can."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            layer: Any = child
            # Exact classes: their subclasses compute something else. Outside the slice there are no weights.
            if type(layer) not in (nn.Linear, Conv1D) or layer.weight is None or layer._forward_hooks:
                continue
            if (
                layer.weight.dtype == torch.float32
                and layer.weight.device.type == "cpu"
                and "forward" not in vars(layer)
            ):
                weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.T
                setattr(parent, name, PackedLinear(weight, layer.bias))
