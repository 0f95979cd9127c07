"""Rows of hidden states as bytes: are they finite, and the coarser formats in which a prompt's may travel. No torch.

A row as "int8" is the scales of its groups of 64 columns (f32 little-endian, the last group may be shorter), then one
signed byte per column: value = scale * byte, bytes from -127 to 127. All formats are little-endian and row-major.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from declai.protocol.errors import BadRows
from declai.protocol.wire import ITEM_BYTES, Buffer, Dtype, PromptFormat, RowFormat

# A few channels are hundreds of times larger than the others. With three such among 4096, one scale a row rounds the
# median channel by 78 % of its size, groups of 128 by 4 %, of 64 by 3 %; the scales are 6 % of what travels.
GROUP_COLUMNS = 64
SCALE_BYTES = 4
STEPS = 127
# The exponent of a bfloat16: all its bits are set in infinities and NaNs alone.
EXPONENT = np.uint16(0x7F80)
_NUMPY: dict[Dtype, str] = {"float32": "<f4", "bfloat16": "<u2", "float16": "<f2"}
Floats = NDArray[np.float32]


def formats_of(allowed: PromptFormat, dtype: Dtype) -> tuple[RowFormat, ...]:
    """In which formats the rows of a prompt may come where a job allows this one (see `encode_rows`)."""
    if allowed == "int8":
        return ("int8",)
    return (dtype, "float16") if allowed == "float16" and ITEM_BYTES[dtype] > 2 else (dtype,)


def is_finite(payload: Buffer, dtype: Dtype) -> bool:
    """Whether no number among these bytes is an infinity or a NaN."""
    values = np.frombuffer(payload, _NUMPY[dtype])
    if dtype == "bfloat16":
        return not bool(((values & EXPONENT) == EXPONENT).any())
    return bool(np.isfinite(values).all())


def encode_rows(payload: Buffer, num_rows: int, dtype: Dtype, wanted: PromptFormat) -> tuple[RowFormat, Buffer]:
    """Rows of `dtype` as they go over a link, and in which format: the dtype's own where `wanted` would not be smaller
    or cannot hold a value. Raises BadRows for a NaN or an infinity in what would be rounded.
    """
    if wanted == "profile" or (wanted == "float16" and ITEM_BYTES[dtype] == 2):
        return dtype, payload
    values = _to_float32(payload, dtype).reshape(num_rows, -1)
    if not np.isfinite(values).all():
        raise BadRows("hidden states are not finite")
    if wanted == "int8":
        return "int8", _quantise(values)
    with np.errstate(over="ignore"):
        halves = values.astype("<f2")
    return ("float16", halves.data.cast("B")) if np.isfinite(halves).all() else (dtype, payload)


def decode_rows(payload: Buffer, num_rows: int, row_format: RowFormat, dtype: Dtype) -> Buffer:
    """The rows in the dtype in which the stage computes, always the same for the same bytes. Raises BadRows."""
    if row_format == dtype:
        return payload
    if row_format == "int8":
        values = _dequantise(np.frombuffer(payload, np.uint8).reshape(num_rows, -1))
    elif row_format == "float16" and dtype == "float32":
        values = np.frombuffer(payload, "<f2").astype("<f4")
    else:
        raise BadRows(f"rows of {row_format} are none of {dtype}")
    rows = _from_float32(values, dtype)
    if not is_finite(rows, dtype):
        raise BadRows(f"a value is infinite, a NaN, or beyond the range of {dtype}")
    return rows


def _quantise(values: Floats) -> Buffer:
    num_rows, num_columns = values.shape
    groups = _in_groups(values)
    scales = (np.abs(groups).max(axis=2) / np.float32(STEPS)).astype("<f4")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # Rounded up, the scale of the largest numbers there are would carry them over the edge.
        scales = np.where(np.isfinite(scales * np.float32(STEPS)), scales, np.nextafter(scales, np.float32(0)))
        # Where the scale is zero, or so small that dividing by it overflows, all is too small to matter.
        steps = np.nan_to_num(np.rint(groups / scales[:, :, None]), nan=0.0)
    steps = np.clip(steps, -STEPS, STEPS).astype(np.int8).reshape(num_rows, -1)[:, :num_columns]
    return np.hstack([scales.view(np.uint8), steps.view(np.uint8)]).data.cast("B")


def _dequantise(rows: NDArray[np.uint8]) -> Floats:
    num_groups = -(-rows.shape[1] // (GROUP_COLUMNS + SCALE_BYTES))
    num_columns = rows.shape[1] - SCALE_BYTES * num_groups
    if num_columns < 1 or -(-num_columns // GROUP_COLUMNS) != num_groups:
        raise BadRows(f"no number of columns makes rows of {rows.shape[1]} bytes")
    scales = np.ascontiguousarray(rows[:, : SCALE_BYTES * num_groups]).view("<f4")
    steps = np.ascontiguousarray(rows[:, SCALE_BYTES * num_groups :]).view(np.int8)
    if not np.isfinite(scales).all() or np.signbit(scales).any():
        raise BadRows("a scale is negative, infinite or a NaN")
    if (steps == -STEPS - 1).any():
        raise BadRows(f"a step is outside [-{STEPS}, {STEPS}]")
    with np.errstate(over="ignore"):
        values: Floats = steps.astype(np.float32) * np.repeat(scales, GROUP_COLUMNS, axis=1)[:, :num_columns]
    return values


def _in_groups(values: Floats) -> Floats:
    """[rows, groups, columns of a group], zeros behind the last column."""
    num_rows, num_columns = values.shape
    padded = np.pad(values, ((0, 0), (0, -num_columns % GROUP_COLUMNS)))
    return padded.reshape(num_rows, -1, GROUP_COLUMNS)


def _to_float32(payload: Buffer, dtype: Dtype) -> Floats:
    if dtype == "bfloat16":
        return (np.frombuffer(payload, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(payload, _NUMPY[dtype]).astype(np.float32, copy=False)


def _from_float32(values: Floats, dtype: Dtype) -> Buffer:
    """Rounded to the nearest, to the even one of two."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(values).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").data.cast("B")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, _NUMPY[dtype]).data.cast("B")
