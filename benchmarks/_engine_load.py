"""Requests of mixed lengths that come at random times; and what a long prompt costs those who decode beside it."""

import itertools
import math
import random
from argparse import Namespace

from _figures import Row, alternate, latencies, percentile, ratios, spread
from _kit import VOCAB_SIZE, reference_model
from _network import Timing
from _references import Whole
from _ring import Request, Ring, ring

from declai.worker.model.threads import pick_num_threads

PROMPT_TOKENS, OUTPUT_TOKENS = (16, 512), (16, 256)
QUICK_PROMPT_TOKENS, QUICK_OUTPUT_TOKENS = (16, 64), (4, 16)
STATIC_BATCH = 16
LONG_PROMPT_TOKENS, LONG_PROMPT_AT_S = 2000, 2.0
HONESTY = [
    "One machine, loopback links, random weights, greedy; lengths and arrivals are drawn from a fixed seed.",
    "Capacity: the same requests, all there at the start. Each load is run once, so its figures vary between runs.",
    "The static batches know all requests and lengths beforehand, and are sorted by length: nobody serves so.",
    "The long prompt's window ends with its own first token; the time without it is the same sequences' own.",
]


def measure(options: Namespace) -> dict[str, Row]:
    folder = reference_model()
    quick = options.quick
    bounds = (QUICK_PROMPT_TOKENS, QUICK_OUTPUT_TOKENS) if quick else (PROMPT_TOKENS, OUTPUT_TOKENS)
    requests = _mixed_requests(8 if quick else 40, *bounds)
    with ring(folder) as ours:
        ours.serve([Request(request.prompt, 4) for request in requests[:2]])
        rows = _poisson(ours, requests, Whole(folder))
        rows |= _long_prompt(ours, 300 if quick else LONG_PROMPT_TOKENS, 40 if quick else 200, options.rounds)
    return rows


def _mixed_requests(count: int, prompt_bounds: tuple[int, int], output_bounds: tuple[int, int]) -> list[Request]:
    """Lengths are uniform in their logarithm: many short ones, a few long ones."""
    randomness = random.Random(0)

    def length(bounds: tuple[int, int]) -> int:
        return round(math.exp(randomness.uniform(math.log(bounds[0]), math.log(bounds[1]))))

    return [Request(_prompt(randomness, length(prompt_bounds)), length(output_bounds)) for _ in range(count)]


def _prompt(randomness: random.Random, num_tokens: int) -> list[int]:
    return [randomness.randrange(VOCAB_SIZE) for _ in range(num_tokens)]


def _poisson(ours: Ring, requests: list[Request], whole: Whole) -> dict[str, Row]:
    num_tokens = sum(request.num_tokens for request in requests)
    by_length = sorted(requests, key=lambda request: request.num_tokens)
    batches = [by_length[first : first + STATIC_BATCH] for first in range(0, len(by_length), STATIC_BATCH)]
    static_s = sum(max(t.last_token_s for t in whole.generate(batch, pick_num_threads())) for batch in batches)
    capacity, row = _offered(ours, requests)
    rows = {
        f"{len(requests)} requests, static batches of {STATIC_BATCH}": {"tokens/s": round(num_tokens / static_s, 1)},
        f"{len(requests)} requests at once": row,
    }
    for load in (0.7, 0.9):
        randomness, at_s, coming = random.Random(1), 0.0, []
        for request in requests:
            at_s += randomness.expovariate(load * capacity * len(requests) / num_tokens)
            coming.append(Request(request.prompt, request.num_tokens, at_s))
        _, rows[f"{len(requests)} requests, arrivals at {load:.0%} of that"] = _offered(ours, coming)
    return rows


def _offered(ours: Ring, requests: list[Request]) -> tuple[float, Row]:
    """Tokens/s from the first arrival to the last token, and the row."""
    served = ours.serve(requests)
    last_s = max(r.at_s + one.timing.last_token_s for r, one in zip(requests, served, strict=True))
    speed = sum(request.num_tokens for request in requests) / (last_s - min(request.at_s for request in requests))
    return speed, {"tokens/s": round(speed, 1), **latencies(one.timing for one in served)}


def _long_prompt(ours: Ring, num_prompt_tokens: int, num_tokens: int, num_rounds: int) -> dict[str, Row]:
    randomness = random.Random(2)
    sequences = [Request(_prompt(randomness, 64), num_tokens) for _ in range(8)]
    long = Request(_prompt(randomness, num_prompt_tokens), 8, LONG_PROMPT_AT_S)
    alone, beside = "8 sequences decode", f"8 sequences, {num_prompt_tokens}-token prompt"
    gaps: dict[str, list[list[float]]] = {alone: [], beside: []}
    first_token_ms: list[float] = []

    def run(name: str) -> None:
        served = [one.timing for one in ours.serve([*sequences, long] if name == beside else sequences)]
        end_s = math.inf
        if name == beside:
            first_token_s = served.pop().first_token_s
            first_token_ms.append(1000 * first_token_s)
            end_s = LONG_PROMPT_AT_S + first_token_s
        gaps[name].append([gap for timing in served for gap in _gaps_ms(timing, LONG_PROMPT_AT_S, end_s)])

    alternate(num_rounds, [lambda: run(alone), lambda: run(beside)])
    p99 = {name: [percentile(found, 99) for found in rounds] for name, rounds in gaps.items()}
    rows: dict[str, Row] = {}
    for name, rounds in gaps.items():
        found = list(itertools.chain(*rounds))
        between = {f"p{percent}": percentile(found, percent) for percent in (50, 99)}
        rows[name] = {"between tokens ms": between, "p99 of a round ms": spread(p99[name])}
    rows[beside] |= {
        "p99 with : without": ratios(p99[beside], p99[alone]),
        "its first token ms": spread(first_token_ms),
    }
    return rows


def _gaps_ms(timing: Timing, begin_s: float, end_s: float) -> list[float]:
    """Times between tokens, of those tokens that come in this window."""
    later = zip(timing.chunks_s[1:], timing.between_tokens_s, strict=True)
    return [1000 * gap for at_s, gap in later if begin_s < at_s <= end_s]
