"""Many requests at once through a whole network on this machine, against `generate` with a static batch of as many.

A devnet of three nodes serves the reference model; clients stream completions from the gateway, all at once. The
reference is the best case there is: the same prompts of one length, known beforehand, in one batch on all cores. Rounds
of both alternate.
"""

import argparse
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _kit import VOCAB_SIZE, record, reference_model
from _network import Timing, devnet, stream

from declai.worker.model.threads import pick_num_threads, use_passive_waiting

HONESTY = [
    "One machine: loopback links, no latency between stages; the gateway, the chain and Redis share its cores.",
    "Random weights, greedy; prompts and outputs of one length, which favours the static batch.",
    "Tokens per second count whole requests: admission, dispatch, prompts, receipts, HTTP; `generate` pays for none.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    options = parser.parse_args()
    use_passive_waiting()  # inherited by the nodes, too: both sides wait in the same way
    folder = reference_model()
    generate = static_batches(folder)
    randomness = random.Random(0)
    figures: dict[str, Any] = {"threads": pick_num_threads()}
    with devnet(folder, options.nodes, max_jobs=max(options.requests)) as description:
        for num_requests in options.requests:
            network, batch = [], []
            for round_number in range(options.rounds + 1):
                prompts = [
                    [randomness.randrange(VOCAB_SIZE) for _ in range(options.prompt_tokens)]
                    for _ in range(num_requests)
                ]
                served = serve(description, prompts, options.output_tokens)
                generated_s = generate(prompts, options.output_tokens)
                if round_number > 0:  # the first one reads weights into memory
                    network.append(served)
                    batch.append(generated_s)
            figures |= figures_of(num_requests, options.output_tokens, network, batch)
    record("serving", figures | vars(options), HONESTY)


def serve(description: dict[str, Any], prompts: list[list[int]], num_tokens: int) -> tuple[float, list[Timing]]:
    """Stream all prompts at once; returns the seconds that all of it took, and each request's times."""
    began = time.perf_counter()
    with ThreadPoolExecutor(len(prompts)) as clients:
        timings = list(clients.map(lambda prompt: stream(description, prompt, num_tokens), prompts))
    return time.perf_counter() - began, timings


def static_batches(folder: Path) -> Any:
    """The same prompts in one batch by `generate`: prompts and number of tokens to seconds."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(pick_num_threads())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def generate(prompts: list[list[int]], num_tokens: int) -> float:
        began = time.perf_counter()
        model.generate(torch.tensor(prompts), max_new_tokens=num_tokens, do_sample=False, pad_token_id=0)
        return time.perf_counter() - began

    return generate


def figures_of(
    num_requests: int, num_tokens: int, network: list[tuple[float, list[Timing]]], batch: list[float]
) -> dict[str, Any]:
    timings = [timing for _, round_timings in network for timing in round_timings]
    network_speed = num_requests * num_tokens / statistics.median(seconds for seconds, _ in network)
    batch_speed = num_requests * num_tokens / statistics.median(batch)
    between_ms = sorted(1000 * gap for timing in timings for gap in timing.between_tokens_s)
    name = f"requests_{num_requests}"
    return {
        f"{name}_network_tokens_per_s": round(network_speed, 1),
        f"{name}_static_batch_tokens_per_s": round(batch_speed, 1),
        f"{name}_ratio": round(network_speed / batch_speed, 3),
        f"{name}_first_token_s_median": round(statistics.median(timing.first_token_s for timing in timings), 3),
        f"{name}_between_tokens_ms_p50": round(between_ms[len(between_ms) // 2], 1),
        f"{name}_between_tokens_ms_p99": round(between_ms[len(between_ms) * 99 // 100], 1),
    }


if __name__ == "__main__":
    main()
