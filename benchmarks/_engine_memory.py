"""What a cached token takes, and whether as many sequences fit into a bound as the arithmetic says. One real engine."""

import multiprocessing
import os
from argparse import Namespace
from multiprocessing.connection import Connection
from pathlib import Path

from _figures import Row
from _kit import reference_model

PROMPT_TOKENS, OUTPUT_TOKENS = 936, 64
HONESTY = [
    "The middle stage (4 of 12 layers) in a process of its own, fed random hidden states; no links.",
    "Resident memory is the process's: scratch memory of torch and of the allocator counts, too.",
]


def measure(options: Namespace) -> dict[str, Row]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_fill, args=(reference_model(), 4 if options.quick else 24, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        rows: dict[str, Row] = ours.recv()
    finally:
        process.kill()
        process.join()
    return rows


def _fill(folder: Path, num_sequences: int, parent: Connection) -> None:
    """Give an engine a bound that holds exactly so many sequences, fill it, and look at what the process takes."""
    import torch

    from declai.worker.engine import AtCapacity, Engine, EngineLimits, SequenceSpec
    from declai.worker.model.architecture import inspect_architecture
    from declai.worker.model.layout import BLOCK_TOKENS
    from declai.worker.model.stage import Stage

    architecture = inspect_architecture(folder)
    stage = Stage.load(architecture, 4, 8, [folder / "model.safetensors"])
    spec = SequenceSpec(PROMPT_TOKENS, OUTPUT_TOKENS)
    cached_tokens = -(-spec.max_positions // BLOCK_TOKENS) * BLOCK_TOKENS
    token_bytes = sum(layer.elements_per_token for layer in architecture.layer_caches[4:8]) * stage.dtype.itemsize
    row_bytes = architecture.hidden_size * stage.dtype.itemsize
    sequence_bytes = cached_tokens * token_bytes + PROMPT_TOKENS * row_bytes
    bound = num_sequences * sequence_bytes
    engine = Engine(stage, EngineLimits(1000, 2048, bound, 256, prefix_reuse=False))
    stage.measure_s_per_token()
    before = _resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    opened = []
    try:
        while True:
            sequence_id = len(opened).to_bytes(32, "big")
            engine.add(sequence_id, spec)
            opened.append(sequence_id)
    except AtCapacity:
        pass
    generator = torch.Generator().manual_seed(0)
    for sequence_id in opened:
        engine.feed(sequence_id, 0, torch.randn(PROMPT_TOKENS, architecture.hidden_size, generator=generator))
    while engine.has_work:
        engine.step()
    for position in range(PROMPT_TOKENS, spec.max_positions):
        for sequence_id in opened:
            engine.feed(sequence_id, position, torch.randn(1, architecture.hidden_size, generator=generator))
        engine.step()
    grown = _resident_bytes() - before
    num_tokens = len(opened) * spec.max_positions
    parent.send(
        {
            "bytes of a token's keys and values (layers x heads x size x dtype)": {"": token_bytes},
            "bytes reserved per token (whole blocks, prompt that waits)": {"": engine.used_cache_bytes // num_tokens},
            "bytes resident per token, all sequences full": {"": grown // num_tokens},
            f"sequences of {PROMPT_TOKENS + OUTPUT_TOKENS} tokens that the bound holds": {"": num_sequences},
            "sequences that were admitted, and filled": {"": len(opened)},
            "MiB of the bound": {"": bound >> 20},
            "MiB resident since the empty engine": {"": grown >> 20},
            "MiB resident since the empty engine, at most": {"": (_peak_bytes() - before) >> 20},
        }
    )


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
