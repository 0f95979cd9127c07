"""Numeric profiles: the number format in which a stage holds its weights, computes, and sends its hidden states."""

from typing import Literal, get_args

import torch

NumericProfile = Literal["fp32", "bf16", "fp16"]

_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(profile: str) -> torch.dtype:
    """The torch dtype of a numeric profile. Raises ValueError for a profile that has none."""
    try:
        return _DTYPES[profile]
    except KeyError:
        raise ValueError(f"numeric profile {profile!r} is unknown; known are {get_args(NumericProfile)}") from None
