"""From a request's admission until all of its stages run, on a real devnet, against two references of the same run.

The gateway measures it itself and tells it in the `Server-Timing` header. The references: an 8 KiB echo through Redis
(LPUSH, BRPOP and back) between two processes, and a plain Celery `apply_async` until a solo worker runs the task.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _kit import ROOT, record

START_TIMEOUT_S = 180
PAYLOAD = "x" * 8192
HONESTY = [
    "One machine: gateway, nodes, Redis and chain share its cores and the loopback; no network latency is in it.",
    "Requests come one at a time to idle nodes; under load tasks wait for the engine's step that is under way.",
    "`ready` ends when the gateway hears that stage 0 and all stages after it run: it holds one more link hop than the "
    "references, the signing of every stage's job, and every check that a node makes (signatures, registry, replay).",
    "Nodes remember what they asked the chain: the first request after a minute of rest pays those calls, too.",
    "The Celery reference has one worker, no result backend in the timing, and no signatures.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--model", type=Path, default=None, help="model folder (default: the devnet's own)")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with scratch_redis() as url:
        figures |= percentiles("redis_echo_ms", measure_echo(url, options.requests))
        figures |= percentiles("celery_apply_async_ms", measure_celery(url, options.requests))
    with devnet(options.nodes, options.model) as description:
        ready, first = measure_gateway(description, options.requests)
    figures |= percentiles("ready_ms", ready) | percentiles("first_token_ms", first)
    figures["ready_over_celery_p50"] = round(figures["ready_ms_p50"] / figures["celery_apply_async_ms_p50"], 2)
    record("dispatch", figures | {"requests": options.requests, "nodes": options.nodes}, HONESTY)


def percentiles(name: str, values: list[float]) -> dict[str, float]:
    """p50 and p99 by nearest rank."""
    ordered = sorted(values)
    return {f"{name}_p{p}": round(ordered[min(len(ordered) * p // 100, len(ordered) - 1)], 3) for p in (50, 99)}


def measure_gateway(description: dict[str, Any], num_requests: int) -> tuple[list[float], list[float]]:
    """Milliseconds until the stages ran, and until the first token."""
    import httpx

    ready, first = [], []
    headers = {"Authorization": f"Bearer {description['api_key']}"}
    body = {"model": description["model"]["name"], "prompt": "def", "max_tokens": 1, "temperature": 0}
    with httpx.Client(base_url=description["gateway"]["url"], headers=headers, timeout=60) as client:
        for number in range(num_requests + 10):
            response = client.post("/v1/completions", json=body)
            if response.status_code != 200:
                sys.exit(f"the gateway answered {response.status_code}: {response.text}")
            if number >= 10:  # connections, caches and code are warm from here on
                timing = dict(re.findall(r"(\w+);dur=([0-9.]+)", response.headers["server-timing"]))
                ready.append(float(timing["ready"]))
                first.append(float(timing["first"]))
    return ready, first


def measure_echo(url: str, num_rounds: int) -> list[float]:
    """Milliseconds of a round trip through two lists, with a process that answers."""
    import redis

    client: Any = redis.Redis.from_url(url)

    def round_trip() -> float:
        began = time.perf_counter()
        client.lpush("there", PAYLOAD)
        if client.brpop(["back"], timeout=30) is None:
            sys.exit("the echo process does not answer")
        return (time.perf_counter() - began) * 1e3

    with child("--as-echo", url):
        return warm(round_trip, num_rounds)


def measure_celery(url: str, num_rounds: int) -> list[float]:
    """Milliseconds from `apply_async` until the task runs, by the clock that all processes share."""
    import redis

    app = celery_app(url)
    client: Any = redis.Redis.from_url(url)

    def start_a_task() -> float:
        began_ns = time.monotonic_ns()
        app.send_task("started", args=[PAYLOAD])
        answer = client.brpop(["started"], timeout=60)
        if answer is None:
            sys.exit("the Celery worker does not answer")
        return float(int(answer[1]) - began_ns) / 1e6

    with child("--as-celery-worker", url):
        return warm(start_a_task, num_rounds)


def warm(measure: Callable[[], float], num_rounds: int) -> list[float]:
    return [measure() for _ in range(num_rounds + 10)][10:]


def celery_app(url: str) -> Any:
    """A Celery app with its defaults and one task, which tells when it began."""
    import redis
    from celery import Celery

    app = Celery("reference", broker=url)
    app.conf.update(task_ignore_result=True, worker_enable_remote_control=False)
    client: Any = redis.Redis.from_url(url)

    def started(payload: str) -> None:
        client.lpush("started", time.monotonic_ns())

    app.task(started, name="started")
    return app


def answer_echoes(url: str) -> None:
    import redis

    client: Any = redis.Redis.from_url(url)
    while True:
        item = client.brpop(["there"], timeout=0)
        client.lpush("back", item[1])


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[None]:
    """This file again, in a process of its own."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", __file__, *arguments], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def scratch_redis() -> Iterator[str]:
    sys.path.insert(0, str(ROOT))
    from declai.devnet.processes import start_redis

    with tempfile.TemporaryDirectory() as folder, start_redis(Path(folder)) as address:
        yield address.url


@contextlib.contextmanager
def devnet(num_nodes: int, model: Path | None) -> Iterator[dict[str, Any]]:
    """A running devnet's description; ended, with all its processes, on leaving."""
    with tempfile.TemporaryDirectory() as folder:
        path, log_path = Path(folder) / "devnet" / "devnet.json", Path(folder) / "devnet.log"
        command = [sys.executable, "-m", "declai", "devnet", "up", "--nodes", str(num_nodes), "--dir", str(path.parent)]
        command += ["--model", str(model)] if model else []
        with log_path.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
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


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-echo"]:
        answer_echoes(sys.argv[2])
    elif sys.argv[1:2] == ["--as-celery-worker"]:
        celery_app(sys.argv[2]).Worker(pool="solo", loglevel="ERROR", quiet=True).start()
    else:
        main()
