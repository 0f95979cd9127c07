"""A whole run: load, time, and hold against the machine's limits."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from declai.contributor.bench.machine import Limits, measure_limits
from declai.contributor.bench.measure import Bench, Timing
from declai.contributor.bench.roofline import StepWork, bottleneck, shares
from declai.contributor.bench.subject import Subject
from declai.worker.engine import Engine, EngineLimits
from declai.worker.model.numeric import numerics_of
from declai.worker.model.stage import Stage

SESSION_TOKENS = (1_000, 4_000)
Started = Callable[[int], None]


def run(
    subject: Subject, max_cache_bytes: int, *, threads: int, quick: bool, started: Started, tick: Callable[[], None]
) -> dict[str, Any]:
    """Everything, in JSON's types. Calls `started(number of timings)` when all is loaded, and `tick` after each.

    Raises what loading raises.
    """
    load = round(os.getloadavg()[0], 2)
    torch.set_num_threads(threads)
    stage = subject.load()
    numerics = numerics_of(subject.profile)
    limits = measure_limits(numerics, stage.device, quick=quick)
    bench = Bench(stage, quick=quick, tick=tick)
    started(bench.num_timings)
    work = StepWork(*subject.num_weights(), numerics.bytes_per_weight, numerics.dtype.itemsize, stage.bytes_per_token)
    decode, prefill = bench.decode(), bench.prefill()
    return {
        "model": {
            "name": subject.name,
            "layers": [subject.first_layer, subject.end_layer],
            "profile": subject.profile,
            "num_weights": work.num_weights + work.num_head_weights,
            "weight_bytes": work.weight_bytes,
            "packs_sequences": stage.packs,
        },
        "machine": {
            "device": subject.device,
            "threads": threads,
            "load_before": load,
            "read_bytes_per_s": round(limits.bytes_per_s),
            "flops_per_s": round(limits.flops_per_s),
        },
        "decode": [{"sequences": timing.num_sequences, **_row(timing, work, limits)} for timing in decode],
        "prefill": [{"chunk_tokens": timing.num_tokens, **_row(timing, work, limits)} for timing in prefill],
        "cache": _cache(stage, max_cache_bytes),
        "bottleneck": _bottleneck(decode, work, limits),
    }


def _row(timing: Timing, work: StepWork, limits: Limits) -> dict[str, float]:
    found = shares(timing, work, limits)
    return {
        "tokens_per_s": round(timing.tokens_per_s, 2),
        "ms_per_step": round(timing.seconds * 1000, 3),
        "share_of_memory": round(found.memory, 3),
        "share_of_arithmetic": round(found.arithmetic, 3),
    }


def _bottleneck(decode: list[Timing], work: StepWork, limits: Limits) -> str:
    if not decode:
        return "The model's context is too short to tell."
    alone, crowd = shares(decode[0], work, limits), shares(decode[-1], work, limits)
    return bottleneck(alone, crowd, decode[-1].num_sequences)


def _cache(stage: Stage, max_cache_bytes: int) -> dict[str, Any]:
    """How many sequences fit, as the engine would reserve for them."""
    engine = Engine(stage, EngineLimits(1, 2, max_cache_bytes))
    sizes = {tokens: engine.sequence_bytes(tokens, tokens) for tokens in SESSION_TOKENS}
    return {
        "bytes_per_token": stage.bytes_per_token,
        "max_cache_bytes": max_cache_bytes,
        "sequences_that_fit": {str(tokens): max_cache_bytes // size for tokens, size in sizes.items()},
    }
