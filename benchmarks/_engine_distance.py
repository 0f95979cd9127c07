"""What delays between stages cost: 25 ms one way from each stage to the next, and from the last to the first."""

import random
import statistics
from argparse import Namespace
from functools import partial

from _figures import Rounds, Row, alternate, latencies, spread
from _kit import VOCAB_SIZE, reference_model
from _ring import Request, Ring, ring

DELAY_S = 0.025
NUM_STAGES = 3
HONESTY = [
    "The delay is a proxy's, on one machine: loopback bandwidth, no loss, no jitter.",
    "Speeds are sums of the sequences' own after their first token. Limit: each one waits for the three delays and "
    "its own computation per token; together no more than without delay.",
]


def measure(options: Namespace) -> dict[str, Row]:
    folder, randomness = reference_model(), random.Random(3)
    num_tokens = 16 if options.quick else 64
    rows: dict[str, Row] = {}
    with ring(folder, num_stages=NUM_STAGES) as near, ring(folder, num_stages=NUM_STAGES, delay_s=DELAY_S) as far:
        one_near = 0.0
        for num_sequences in (1, 8) if options.quick else (1, 8, 32):
            requests = [
                Request([randomness.randrange(VOCAB_SIZE) for _ in range(64)], num_tokens) for _ in range(num_sequences)
            ]
            rounds = {place: Rounds(name) for place, name in ((near, "no delay"), (far, "25 ms"))}
            for place in rounds:
                place.serve([Request(request.prompt, 4) for request in requests])
            alternate(options.rounds, [partial(_run, place, requests, series) for place, series in rounds.items()])
            speeds = {place: series.decode_tokens_per_s for place, series in rounds.items()}
            best = statistics.median(speeds[near])
            one_near = one_near or best
            limit = min(num_sequences / (NUM_STAGES * DELAY_S + 1 / one_near), best)
            for place, series in rounds.items():
                row = {"decode tokens/s": spread(speeds[place])}
                if place is far:
                    row |= {"limit": round(limit, 1), "of the limit": spread([s / limit for s in speeds[far]], 3)}
                row |= latencies(timing for timings in series.rounds for timing in timings)
                rows[f"{num_sequences} {'sequence' if num_sequences == 1 else 'sequences'}, {series.name}"] = row
    return rows


def _run(place: Ring, requests: list[Request], series: Rounds) -> None:
    series.rounds.append([one.timing for one in place.serve(requests)])
