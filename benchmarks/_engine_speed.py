"""How fast 1, 8 and 16 sequences are that all come at once, against `generate` and `generate_batch`."""

import random
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from _figures import Rounds, Row, alternate, ratios, spread
from _kit import VOCAB_SIZE, reference_model
from _network import Timing
from _references import CannotRun, Whole
from _ring import Request, Ring, ring

from declai.worker.model.threads import pick_num_threads

HONESTY = [
    "One machine, loopback links, no delay between stages; three stages of one thread each, the gateway beside them.",
    "Random weights, greedy; prompts and outputs of 64 tokens, which favours the static batch: nobody waits in it.",
    "Processor time: the three stages' without the gateway beside them, of `generate` the whole process's.",
    "The ring's times begin before the jobs are sent to the nodes, `generate`'s with the prompts in memory.",
]


def measure(options: Namespace) -> dict[str, Row]:
    folder, num_layers, profile, dtype = _model(options.device)
    whole = Whole(folder, dtype, options.device)
    rows: dict[str, Row] = {}
    with ExitStack() as opened:
        rings = {"ring": opened.enter_context(ring(folder, num_layers, profile=profile, device=options.device))}
        if options.device == "cuda":
            plain = ring(folder, num_layers, profile=profile, device=options.device, cuda_graphs=False)
            rings["ring without CUDA graphs"] = opened.enter_context(plain)
        for num_sequences in (1, 8) if options.quick else (1, 8, 16):
            rows |= _compare(rings, whole, num_sequences, 16 if options.quick else 64, options.rounds)
    return rows


def _model(device: str) -> tuple[Path, int, str, str]:
    if device == "cpu":
        return reference_model(), 12, "fp32", "float32"
    return reference_model(16, 2048, "bfloat16"), 16, "bf16", "bfloat16"


def _compare(
    rings: dict[str, Ring], whole: Whole, num_sequences: int, num_tokens: int, num_rounds: int
) -> dict[str, Row]:
    randomness = random.Random(num_sequences)
    batches = [
        [Request([randomness.randrange(VOCAB_SIZE) for _ in range(64)], num_tokens) for _ in range(num_sequences)]
        for _ in range(num_rounds)
    ]
    tokens: dict[str, list[list[list[int]]]] = {}

    def serve(ours: Ring, requests: list[Request]) -> tuple[list[Timing], list[list[int]]]:
        served = ours.serve(requests)
        return [one.timing for one in served], [one.token_ids for one in served]

    def reference(run: Callable[..., list[Timing]], num_threads: int) -> Way:
        return lambda requests: (run(requests, num_threads), whole.token_ids)

    ways: dict[str, Way] = {name: partial(serve, ours) for name, ours in rings.items()}
    if num_sequences == 1:
        ways["generate, 1 thread"] = reference(whole.generate, 1)
    ways[f"generate, {pick_num_threads()} threads"] = reference(whole.generate, pick_num_threads())
    if num_sequences == 8:
        ways["generate_batch, set up before"] = reference(whole.generate_batch, pick_num_threads())

    def processor_s(name: str) -> float:
        return rings[name].processor_s() if name in rings else time.process_time()

    def run(name: str) -> None:
        before_s = processor_s(name)
        timings, token_ids = ways[name](batches[len(rounds[name].rounds)])
        rounds[name].processor_s.append(processor_s(name) - before_s)
        rounds[name].rounds.append(timings)
        tokens.setdefault(name, []).append(token_ids)

    skipped: dict[str, Row] = {}
    for name, way in list(ways.items()):
        try:
            way([Request(request.prompt, 4) for request in batches[0]])  # reads weights, opens links
        except CannotRun as error:
            del ways[name]
            skipped[_label(num_sequences, name)] = {"skipped": str(error)}
    rounds = {name: Rounds(name) for name in ways}
    alternate(num_rounds, [partial(run, name) for name in ways])
    rows = {}
    for name, series in rounds.items():
        row = series.row() | {"tokens/processor s": spread(series.tokens_per_processor_s)}
        if name != "ring":
            row["ring's speed : this"] = ratios(rounds["ring"].tokens_per_s, series.tokens_per_s)
            row["the same per processor s"] = ratios(
                rounds["ring"].tokens_per_processor_s, series.tokens_per_processor_s
            )
            row["same tokens"] = _same(tokens["ring"], tokens[name])
        rows[_label(num_sequences, name)] = row
    return rows | skipped


def _label(num_sequences: int, way: str) -> str:
    return f"{num_sequences} {'sequence' if num_sequences == 1 else 'sequences'}, {way}"


Way = Callable[[list[Request]], tuple[list[Timing], list[list[int]]]]


def _same(ours: list[list[list[int]]], theirs: list[list[list[int]]]) -> str:
    pairs = [
        (one, other)
        for batch, other_batch in zip(ours, theirs, strict=True)
        for one, other in zip(batch, other_batch, strict=True)
    ]
    return f"{sum(one == other for one, other in pairs)} of {len(pairs)}"
