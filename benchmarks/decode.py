"""Decode of one request through a whole network on this machine against `generate` with the same total of cores.

A devnet of three nodes serves the reference model; a client streams completions from the gateway. Between its requests
the same prompts go through `generate` in this process, with as many threads as this machine has cores. Rounds of both
alternate; times are of whole requests: admission, dispatch, prompt, every token over the links and over HTTP.
"""

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _kit import VOCAB_SIZE, record, reference_model
from _network import Timing, devnet, stream

from declai.worker.model.threads import pick_num_threads, use_passive_waiting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    options = parser.parse_args()
    use_passive_waiting()  # inherited by the nodes, too: both sides wait in the same way
    folder = reference_model()
    generate = whole_model(folder)
    randomness = random.Random(0)
    network: list[Timing] = []
    whole: list[Timing] = []
    with devnet(folder, options.nodes) as description:
        for round_number in range(options.rounds + 1):
            prompt = [randomness.randrange(VOCAB_SIZE) for _ in range(options.prompt_tokens)]
            timings = (stream(description, prompt, options.output_tokens), generate(prompt, options.output_tokens))
            if round_number > 0:  # the first one reads weights into memory
                network.append(timings[0])
                whole.append(timings[1])
    record("decode", figures(network, whole) | vars(options), HONESTY)


HONESTY = [
    "One machine: loopback links, no latency between stages; the gateway, the chain and Redis share its cores.",
    "Random weights, greedy, one request at a time; what else runs on the machine counts.",
    "The ratio compares medians of whole requests; `generate` pays for no network, no receipts and no signatures.",
]


def figures(network: list[Timing], whole: list[Timing]) -> dict[str, Any]:
    def median(values: Iterator[float]) -> float:
        return statistics.median(values)

    network_speed = median(timing.tokens_per_s for timing in network)
    whole_speed = median(timing.tokens_per_s for timing in whole)
    network_decode = median(timing.decode_tokens_per_s for timing in network)
    whole_decode = median(timing.decode_tokens_per_s for timing in whole)
    return {
        "threads": pick_num_threads(),
        "network_tokens_per_s": round(network_speed, 2),
        "generate_tokens_per_s": round(whole_speed, 2),
        "ratio": round(network_speed / whole_speed, 3),
        "network_decode_tokens_per_s": round(network_decode, 2),
        "generate_decode_tokens_per_s": round(whole_decode, 2),
        "decode_ratio": round(network_decode / whole_decode, 3),
        "network_first_token_s_median": round(median(timing.first_token_s for timing in network), 4),
        "network_request_s_worst": round(max(timing.last_token_s for timing in network), 3),
    }


def whole_model(folder: Path) -> Any:
    """The same requests by `generate`: prompt and number of tokens to Timing."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.generation.streamers import BaseStreamer
    from transformers.utils import logging

    class Clock(BaseStreamer):  # type: ignore[misc]
        """When the prompt went in (the first time) and when each token came out."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    logging.disable_progress_bar()
    torch.set_num_threads(pick_num_threads())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def generate(prompt: list[int], num_tokens: int) -> Timing:
        clock = Clock()
        began = time.perf_counter()
        model.generate(
            torch.tensor([prompt]), max_new_tokens=num_tokens, do_sample=False, pad_token_id=0, streamer=clock
        )
        return Timing([at - began for at in clock.times[1:]], num_tokens)

    return generate


if __name__ == "__main__":
    main()
