"""The two limits of a machine: how fast it reads memory, and how fast it multiplies matrices. Both measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from declai.worker.model.linears import linear_for
from declai.worker.model.numeric import Numerics

READ_BYTES = 2**29  # far beyond the caches of any processor's cores
MATRIX_SIZE = 2048
ROUNDS = 5


@dataclass(frozen=True)
class Limits:
    """Bytes a second that can be read, and floating-point operations a second of a profile's matrix product."""

    bytes_per_s: float
    flops_per_s: float


@torch.inference_mode()
def measure_limits(numerics: Numerics, device: torch.device, *, quick: bool) -> Limits:
    """The best of some rounds each, with as many threads as torch has now."""
    return Limits(_read_rate(device, READ_BYTES // (4 if quick else 1)), _product_rate(numerics, device, quick=quick))


def _read_rate(device: torch.device, num_bytes: int) -> float:
    values = torch.ones(num_bytes // 4, dtype=torch.float32, device=device)
    return num_bytes / _best(lambda: values.sum().item())


def _product_rate(numerics: Numerics, device: torch.device, *, quick: bool) -> float:
    """By a linear layer as stages have them, with as many rows as columns."""
    size = MATRIX_SIZE // (2 if quick else 1) * (1 if device.type == "cpu" else 4)
    layer = linear_for(numerics, device, torch.ones(size, size), None)
    rows = torch.ones(size, size, device=device)
    return 2 * size**3 / _best(lambda: layer(rows)[0, 0].item())


def _best(run: Callable[[], object]) -> float:
    """Seconds; `run` returns when the device is done."""
    seconds = []
    for _ in range(ROUNDS + 1):  # the first one warms up
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
