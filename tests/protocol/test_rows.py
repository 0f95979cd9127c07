"""Formats of hidden states: how far rounding may go, that bytes decode to one thing only, and what is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from declai.protocol.errors import BadRows
from declai.protocol.rows import GROUP_COLUMNS, decode_rows, encode_rows, formats_of, is_finite
from declai.protocol.wire import Dtype, PromptFormat

shapes = st.tuples(st.integers(1, 4), st.integers(1, 200))
values = arrays.arrays(np.float32, shapes, elements=st.floats(-1e6, 1e6, width=32))
wild = arrays.arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


def decoded(payload: object, num_rows: int, row_format: str, dtype: Dtype = "float32") -> np.ndarray:
    rows = decode_rows(payload, num_rows, row_format, dtype)  # type: ignore[arg-type]
    return np.frombuffer(rows, "<f4").reshape(num_rows, -1)


@given(values)
def test_int8_is_at_most_half_a_step_of_its_group_off(x: np.ndarray) -> None:
    row_format, payload = encode_rows(x.tobytes(), len(x), "float32", "int8")
    assert row_format == "int8"
    num_groups = -(-x.shape[1] // GROUP_COLUMNS)
    assert memoryview(payload).nbytes == len(x) * (x.shape[1] + 4 * num_groups)
    back = decoded(payload, len(x), "int8")
    for first in range(0, x.shape[1], GROUP_COLUMNS):
        group = slice(first, first + GROUP_COLUMNS)
        step = np.abs(x[:, group]).max(axis=1, keepdims=True) / 127
        assert (np.abs(back[:, group] - x[:, group]) <= step * 0.5001 + 1e-37).all()


@given(wild)
def test_any_finite_row_survives_int8_and_decodes_to_finite_numbers(x: np.ndarray) -> None:
    _, payload = encode_rows(x.tobytes(), len(x), "float32", "int8")
    assert np.isfinite(decoded(payload, len(x), "int8")).all()


@given(wild)
def test_float16_is_within_its_rounding_or_the_rows_stay_as_they_are(x: np.ndarray) -> None:
    row_format, payload = encode_rows(x.tobytes(), len(x), "float32", "float16")
    back = decoded(payload, len(x), row_format)
    if row_format == "float32":
        assert np.abs(x).max() > 65504
        assert (back == x).all()
    else:
        assert (np.abs(back - x) <= np.abs(x) * 2.0**-11 + 2.0**-25).all()


@given(values)
def test_bfloat16_rows_travel_as_int8_and_come_back_as_bfloat16(x: np.ndarray) -> None:
    halves = (x.view(np.uint32) >> 16).astype("<u2")
    exact = (halves.astype(np.uint32) << 16).view(np.float32)
    _, payload = encode_rows(halves.tobytes(), len(x), "bfloat16", "int8")
    rows = decode_rows(payload, len(x), "int8", "bfloat16")
    back = (np.frombuffer(rows, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(x.shape)
    assert (np.abs(back - exact) <= np.abs(exact).max() / 127 * 0.51 + np.abs(exact) * 2.0**-8).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_two_byte_rows_do_not_become_float16(dtype: Dtype) -> None:
    payload = bytes(range(16))
    assert encode_rows(payload, 2, dtype, "float16") == (dtype, payload)
    assert formats_of("float16", dtype) == (dtype,)


@pytest.mark.parametrize("wanted", ["float16", "int8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(wanted: PromptFormat, bad: float) -> None:
    x = np.ones((2, 5), np.float32)
    x[1, 3] = bad
    with pytest.raises(BadRows):
        encode_rows(x.tobytes(), 2, "float32", wanted)
    with np.errstate(over="ignore"), pytest.raises(BadRows):
        decode_rows(x.astype("<f2").tobytes(), 2, "float16", "float32")


@pytest.mark.parametrize(
    "scale", [struct.pack("<f", s) for s in (np.nan, np.inf, -np.inf, -1.0, -0.0, 3e38)] + [b"\xff\xff\xff\x7f"]
)
def test_hostile_scales_are_refused(scale: bytes) -> None:
    with pytest.raises(BadRows):
        decode_rows(scale + bytes([127, 0, 3]), 1, "int8", "float32")


def test_a_scale_beyond_the_dtype_is_refused() -> None:
    row = struct.pack("<f", 1000.0) + bytes([127, 0, 3])
    decode_rows(row, 1, "int8", "bfloat16")
    with pytest.raises(BadRows):
        decode_rows(row, 1, "int8", "float16")


@pytest.mark.parametrize("size", [1, 4, GROUP_COLUMNS + 4 + 1, GROUP_COLUMNS + 4 + 4])
def test_sizes_that_no_row_has_are_refused(size: int) -> None:
    with pytest.raises(BadRows):
        decode_rows(bytes(size), 1, "int8", "float32")


def test_a_step_that_no_honest_sender_makes_is_refused() -> None:
    with pytest.raises(BadRows):
        decode_rows(struct.pack("<f", 1.0) + bytes([128, 0]), 1, "int8", "float32")


def test_one_format_is_not_taken_for_another() -> None:
    with pytest.raises(BadRows):
        decode_rows(bytes(8), 1, "bfloat16", "float32")
    with pytest.raises(BadRows):
        decode_rows(bytes(8), 1, "float16", "bfloat16")


@pytest.mark.parametrize(("dtype", "number"), [("float32", "<f4"), ("float16", "<f2")])
def test_finite_means_no_infinity_and_no_nan(dtype: Dtype, number: str) -> None:
    assert is_finite(b"", dtype)
    assert is_finite(np.array([0, -1, 65504], number).tobytes(), dtype)
    for bad in (np.inf, -np.inf, np.nan):
        assert not is_finite(np.array([0, bad], number).tobytes(), dtype)


def test_finite_bfloat16() -> None:
    assert is_finite(struct.pack("<3H", 0, 0x7F7F, 0xFF7F), "bfloat16")
    for bad in (0x7F80, 0xFF80, 0x7FC0, 0xFFFF):
        assert not is_finite(struct.pack("<2H", 0, bad), "bfloat16")
