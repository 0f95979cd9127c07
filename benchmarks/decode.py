"""Single-session decode through a whole network on this machine against `generate` with the same total of cores.

A devnet of three nodes serves the reference model; a client streams completions from the gateway. Between its requests
the same prompts go through `generate` in this process, with as many threads as this machine has cores. Rounds of both
alternate; times are of whole requests: admission, dispatch, prompt, every token over the links and over HTTP.
"""

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _kit import VOCAB_SIZE, record, reference_model

from worker.model.threads import pick_num_threads, use_passive_waiting

START_TIMEOUT_S = 300
REQUEST_TIMEOUT_S = 300


@dataclass(frozen=True)
class Timing:
    """Seconds from the request to its first and its last token, and the tokens made."""

    first_token_s: float
    last_token_s: float
    num_tokens: int

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.last_token_s

    @property
    def decode_tokens_per_s(self) -> float:
        return (self.num_tokens - 1) / (self.last_token_s - self.first_token_s)


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
    "Random weights, greedy, one session at a time; what else runs on the machine counts.",
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


@contextmanager
def devnet(model: Path, num_nodes: int) -> Iterator[dict[str, Any]]:
    """A running devnet's description (devnet.json); ended, with all its processes, on leaving."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "devnet" / "devnet.json"
        log_path = Path(scratch) / "devnet.log"
        command = [sys.executable, "-m", "declai", "devnet", "up", "--nodes", str(num_nodes)]
        command += ["--model", str(model), "--dir", str(Path(scratch) / "devnet")]
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not path.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the devnet did not start:\n{log_path.read_text(errors='replace')[-4000:]}")
                time.sleep(0.1)
            yield json.loads(path.read_text())
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def stream(description: dict[str, Any], prompt: list[int], num_tokens: int) -> Timing:
    """One streamed completion through the gateway."""
    import httpx

    body = {
        "model": description["model"]["name"],
        "prompt": " ".join(f"w{token_id}" for token_id in prompt),
        "max_tokens": num_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    first_s: float | None = None
    usage: dict[str, int] = {}
    began = time.perf_counter()
    last_s = 0.0
    with httpx.stream(
        "POST",
        description["gateway"]["url"] + "/v1/completions",
        json=body,
        headers={"Authorization": f"Bearer {description['api_key']}"},
        timeout=REQUEST_TIMEOUT_S,
    ) as response:
        if response.status_code != 200:
            sys.exit(f"the gateway answered {response.status_code}: {response.read().decode(errors='replace')}")
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                sys.exit(f"the stream failed: {chunk['error']}")
            if any(choice.get("text") for choice in chunk.get("choices", [])):
                last_s = time.perf_counter() - began
                first_s = last_s if first_s is None else first_s
            usage = chunk.get("usage") or usage
    if first_s is None or usage.get("completion_tokens") != num_tokens or usage.get("prompt_tokens") != len(prompt):
        sys.exit(f"expected {len(prompt)} prompt and {num_tokens} output tokens, usage says {usage}")
    return Timing(first_s, last_s, num_tokens)


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
        return Timing(clock.times[1] - began, time.perf_counter() - began, num_tokens)

    return generate


if __name__ == "__main__":
    main()
