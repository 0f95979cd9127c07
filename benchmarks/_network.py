"""A devnet that serves a model, and one streamed request to it: what the benchmarks of the whole network share."""

import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.devnet import Cli, running_devnet

REQUEST_TIMEOUT_S = 300


@dataclass(frozen=True)
class Timing:
    """Seconds from the request to each chunk of text that came, and the tokens made."""

    chunks_s: list[float]
    num_tokens: int

    @property
    def first_token_s(self) -> float:
        return self.chunks_s[0]

    @property
    def last_token_s(self) -> float:
        return self.chunks_s[-1]

    @property
    def between_tokens_s(self) -> list[float]:
        return [after - before for before, after in itertools.pairwise(self.chunks_s)]

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.last_token_s

    @property
    def decode_tokens_per_s(self) -> float:
        return (self.num_tokens - 1) / (self.last_token_s - self.first_token_s)


@contextmanager
def devnet(model: Path, num_nodes: int, max_jobs: int = 8) -> Iterator[dict[str, Any]]:
    """A running devnet's description (devnet.json); ended, with all its processes, on leaving."""
    options = ["--nodes", str(num_nodes), "--model", str(model)]
    env = os.environ | {"DECLAI_MAX_JOBS": str(max_jobs)}
    with tempfile.TemporaryDirectory() as scratch, running_devnet(Cli(Path(scratch)), *options, env=env) as running:
        yield json.loads((running.cli.home / "devnet" / "devnet.json").read_text())


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
    chunks_s: list[float] = []
    usage: dict[str, int] = {}
    began = time.perf_counter()
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
                chunks_s.append(time.perf_counter() - began)
            usage = chunk.get("usage") or usage
    if not chunks_s or usage.get("completion_tokens") != num_tokens or usage.get("prompt_tokens") != len(prompt):
        sys.exit(f"expected {len(prompt)} prompt and {num_tokens} output tokens, usage says {usage}")
    return Timing(chunks_s, num_tokens)
