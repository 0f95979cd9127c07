"""One hop of one token between two stages, in microseconds: from the engine's output to the next engine's step.

Two processes with real links, engine threads and jobs pass a ring of tokens around: hidden states one way, token ids
back. Their engines compute nothing; they sleep `--compute-ms` and note the time. Both clocks are the machine's
monotonic one. In the same run a bare ZeroMQ CURVE pair echoes messages of the same size.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import zmq
from _kit import ROOT, record
from numpy.typing import NDArray

import declai.links.sockets

sys.path.append(str(ROOT))  # for the tests' signed jobs


from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.protocol import commitments, wire
from declai.protocol.jobs import StageJob
from declai.worker.engine import HiddenRows, SampledToken, SequenceSpec, StageOutput
from declai.worker.engine.memory.kept_rows import RowsLost
from declai.worker.engine.runner import Runner
from declai.worker.job.engine_thread import EngineThread
from declai.worker.job.served_layers import ServedLayers
from declai.worker.job.stage_engine import StageIdentity
from tests.support.parties import Party, curve_pair, make_jobs

WARM_UP_TOKENS = 50
Event = tuple[int, str]


class Marks:
    """What happened when, in nanoseconds."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, name: str) -> None:
        self.events.append((time.monotonic_ns(), name))

    def around(self, name: str, function: Any) -> Any:
        def marked(*arguments: Any, **named: Any) -> Any:
            self(f"{name}<")
            try:
                return function(*arguments, **named)
            finally:
                self(f"{name}>")

        return marked


class SleepingEngine:
    """Parses its input as the real engine does, sleeps instead of computing, and makes rows or tokens of noise."""

    def __init__(self, is_first: bool, hidden_size: int, compute_s: float, marks: Marks) -> None:
        self._is_first, self._compute_s, self._marks = is_first, compute_s, marks
        shape = SimpleNamespace(hidden_size=hidden_size, vocab_size=2**31)
        stage = SimpleNamespace(
            is_first=is_first,
            architecture=shape,
            dtype=torch.float32,
            device=torch.device("cpu"),
            bytes_per_row=4 * hidden_size,
        )
        self._parse = marks.around("parse", Runner(stage, 1, None).parse)  # type: ignore[arg-type]
        self._rows = np.random.default_rng(0).standard_normal(hidden_size).astype(np.float32)
        self._waiting: list[tuple[bytes, int]] = []
        self._spec: dict[bytes, SequenceSpec] = {}

    @property
    def step_in_s(self) -> float | None:
        return 0.0 if self._waiting else None

    def add(self, sequence_id: bytes, spec: SequenceSpec) -> None:
        self._spec[sequence_id] = spec

    def feed(self, sequence_id: bytes, first_position: int, payload: Any) -> None:
        self._parse(payload)
        self._waiting.append((sequence_id, first_position))

    def kept_rows(self, sequence_id: bytes, first: int, end: int) -> NDArray[np.uint8]:
        raise RowsLost("nothing is kept where nothing is lost")

    def hold(self, sequence_id: bytes, held: bool) -> None:
        pass

    def step(self) -> list[StageOutput]:
        self._marks("in")
        sequence_id, position = self._waiting.pop()
        time.sleep(self._compute_s)
        if self._is_first:
            made: StageOutput = HiddenRows(sequence_id, position, 1, (self._rows + position).view(np.uint8)[None])
        else:
            last = position + 1 == self._spec[sequence_id].max_tokens
            made = SampledToken(sequence_id, position, position + 1, position, "length" if last else None, None)
        self._marks("out")
        return [made]

    def remove(self, sequence_id: bytes) -> None:
        self._spec.pop(sequence_id, None)


def run_stage(
    parent: Connection, keys: tuple[bytes, bytes], registered: set[bytes], hidden_size: int, compute_s: float
) -> None:
    """One stage's process: tell the endpoint, get the job, run it, tell what happened when."""
    torch.set_num_threads(1)
    marks = Marks()
    declai.links.sockets.encode = marks.around("serialise", declai.links.sockets.encode)
    declai.links.sockets.decode = marks.around("deserialise", declai.links.sockets.decode)
    commitments._Side.hash = marks.around("commit", commitments._Side.hash)  # type: ignore[method-assign]
    links = NodeLinks(LinkKeyPair(*keys), "tcp://127.0.0.1:0", registered.__contains__)
    links.send = marks.around("send", links.send)  # type: ignore[method-assign]
    parent.send(links.endpoint)
    job: StageJob = parent.recv()
    engine_thread = EngineThread(links, ServedLayers(bytes(32), "none", 0, 1, capacity=1))
    engine_thread.start()
    engine = SleepingEngine(job.is_first, hidden_size, compute_s, marks)
    end = engine_thread.submit(job, engine, StageIdentity("fp32", "float32", bytes(32))).result()
    time.sleep(0.2)  # the other stage's last frames
    engine_thread.stop()
    assert end.commitment is not None, end
    parent.send(marks.events)


def measure_ring(num_tokens: int, hidden_size: int, compute_s: float) -> list[list[Event]]:
    """The events of both stages of one job."""
    gateway, nodes = Party(), [Party(), Party()]
    registered = {party.link[0] for party in (gateway, *nodes)}
    links = NodeLinks(LinkKeyPair(*gateway.link), "tcp://127.0.0.1:0", registered.__contains__)
    gateway.endpoint = links.endpoint
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    for node in nodes:
        ours, theirs = context.Pipe()
        process = context.Process(target=run_stage, args=(theirs, node.link, registered, hidden_size, compute_s))
        process.start()
        ends.append(ours)
        processes.append(process)
    for node, end in zip(nodes, ends, strict=True):
        node.endpoint = end.recv()
    jobs = make_jobs(gateway, nodes, num_prompt_tokens=1, max_tokens=num_tokens)
    for end, job in zip(ends, jobs, strict=True):
        end.send(job)
    while not any(isinstance(inbound.frame, wire.Ready) for inbound in links.poll(1)):
        pass
    links.send(nodes[0].peer, wire.Prompt(jobs[0].job_id, 1, struct.pack("<I", 1)))
    while not all(end.poll() for end in ends):
        links.poll(0.05)
    events = [end.recv() for end in ends]
    for process in processes:
        process.join()
    links.close()
    return events


def hops(source: Sequence[Event], target: Sequence[Event]) -> Iterator[dict[str, float]]:
    """Each hop's parts in microseconds: from an "out" at the source to the next "in" at the target."""
    merged = sorted([(at, f"source {name}") for at, name in source] + [(at, f"target {name}") for at, name in target])
    seen: dict[str, int] | None = None
    for at, name in merged:
        if name == "source out":
            seen = {}
        if seen is None:
            continue
        seen.setdefault(name, at)
        if name == "target in":
            yield parts_of(seen)
            seen = None


def parts_of(seen: dict[str, int]) -> dict[str, float]:
    # The frame may be there before the call that sent it comes back.
    seen["source send>"] = min(seen.get("source send>", seen["target in"]), seen["target deserialise<"])
    borders = [
        ("before serialise", "source out", "source serialise<"),
        ("serialise", "source serialise<", "source serialise>"),
        ("send", "source serialise>", "source send>"),
        ("wire", "source send>", "target deserialise<"),
        ("deserialise", "target deserialise<", "target deserialise>"),
        ("receive", "target deserialise>", "target parse<"),
        ("parse", "target parse<", "target parse>"),
        ("until step", "target parse>", "target in"),
        ("whole", "source out", "target in"),
    ]
    return {name: (seen[end] - seen[begin]) / 1000 for name, begin, end in borders}


def commit_times(events: Sequence[Event]) -> list[float]:
    """Microseconds that hashing a row took, in the thread where nobody waits for it."""
    begun = [at for at, name in events if name == "commit<"]
    done = [at for at, name in events if name == "commit>"]
    return [(end - begin) / 1000 for begin, end in zip(begun, done, strict=True)]


def echo(parent: Connection, secret: bytes) -> None:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.curve_server, router.curve_secretkey = True, secret
    parent.send(router.bind_to_random_port("tcp://127.0.0.1"))
    while parts := router.recv_multipart(copy=False):
        if len(parts[-1].buffer) == 1:
            break
        router.send_multipart(parts, copy=False)
    context.destroy(linger=0)


def measure_bare(num_messages: int, num_bytes: int, pause_s: float) -> list[float]:
    """Half round trips of a bare CURVE pair in microseconds, with the same pause between two messages."""
    context = multiprocessing.get_context("spawn")
    server, client = curve_pair(), curve_pair()
    ours, theirs = context.Pipe()
    process = context.Process(target=echo, args=(theirs, server[1]))
    process.start()
    zmq_context = zmq.Context()
    dealer = zmq_context.socket(zmq.DEALER)
    dealer.curve_serverkey, (dealer.curve_publickey, dealer.curve_secretkey) = server[0], client
    dealer.connect(f"tcp://127.0.0.1:{ours.recv()}")
    message, times = os.urandom(num_bytes), []
    for _ in range(num_messages):
        time.sleep(pause_s)
        began = time.monotonic_ns()
        dealer.send(message, copy=False)
        dealer.recv(copy=False)
        times.append((time.monotonic_ns() - began) / 2000)
    dealer.send(b"\0")
    process.join()
    zmq_context.destroy(linger=0)
    return times


def summary(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 1),
        "p90": round(ordered[int(len(ordered) * 0.9)], 1),
        "p99": round(ordered[int(len(ordered) * 0.99)], 1),
    }


def table(measured: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {part: summary([hop[part] for hop in measured]) for part in measured[0]}


HONESTY = [
    "One machine, loopback: no network between the two processes; what else runs on the machine counts.",
    "The engines sleep instead of computing, so that a core is idle when a frame comes and must wake up.",
    "The marks themselves cost about a microsecond each, and there are ten of them in a hop.",
    "The bare pair parses, checks and commits to nothing; it is what the libraries cost by themselves.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--hidden-size", type=int, default=4096)
    parser.add_argument("--compute-ms", type=float, default=1.0)
    options = parser.parse_args()
    compute_s = options.compute_ms / 1000
    bare = measure_bare(options.tokens, 4 * options.hidden_size, compute_s)
    first, last = measure_ring(options.tokens + WARM_UP_TOKENS, options.hidden_size, compute_s)
    forth = table(list(hops(first, last))[WARM_UP_TOKENS:])
    back = table(list(hops(last, first))[WARM_UP_TOKENS:])
    figures: dict[str, Any] = {f"hidden states: {part}, us": row for part, row in forth.items()}
    figures |= {f"token back: {part}, us": row for part, row in back.items()}
    figures["hidden states: commit, beside the hop, us"] = summary(commit_times(first))
    figures["bare CURVE, half a round trip, us"] = summary(bare)
    record("hop", figures | vars(options), HONESTY)


if __name__ == "__main__":
    main()
