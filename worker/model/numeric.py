"""Numeric profiles: the number format in which a stage multiplies matrices and keeps its weights, keys and values.

Between its matrices every profile computes in float32: the residual stream never leaves it, so that layers add up
without loss, and hidden states go from stage to stage as float32.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from declai.chain.fields import NUMERIC_PROFILES

RESIDUAL_DTYPE = torch.float32


@dataclass(frozen=True)
class Numerics:
    """What a profile computes with.

    Attributes:
        dtype: of both sides of a matrix product, and of stored keys and values.
        weight_bits: of the layers' matrices where they are kept as integers; they are widened to `dtype` when used.
    """

    dtype: torch.dtype
    weight_bits: Literal[4, 8] | None = None

    @property
    def bytes_per_weight(self) -> float:
        """Of the layers' matrices, with their scales."""
        if self.weight_bits is None:
            return float(self.dtype.itemsize)
        return {8: 1.0, 4: 0.625}[self.weight_bits]


_NUMERICS = {
    "fp32": Numerics(torch.float32),
    "bf16": Numerics(torch.bfloat16),
    "fp16": Numerics(torch.float16),
    "int8": Numerics(torch.bfloat16, 8),
    "int4": Numerics(torch.bfloat16, 4),
}
assert set(_NUMERICS) == set(NUMERIC_PROFILES)


def numerics_of(profile: str) -> Numerics:
    """What a numeric profile computes with. Raises ValueError for an unknown one."""
    try:
        return _NUMERICS[profile]
    except KeyError:
        raise ValueError(f"numeric profile {profile!r} is unknown; known are {', '.join(_NUMERICS)}") from None
