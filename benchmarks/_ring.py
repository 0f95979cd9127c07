"""A ring of stage processes on this machine and a gateway that speaks to them by hand: no HTTP, Celery, chain.

Everything else is a network's own: signed jobs that each node checks, CURVE links, engines, commitments, receipts that
are signed, kept and acknowledged.
"""

import itertools
import multiprocessing
import os
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from _network import Timing
from _stage import StagePlan, ToldRegistry, run_stage

from declai.chain.messages import sign
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.protocol import wire
from declai.protocol.jobs import StageJob, seal
from declai.protocol.options import GenerationOptions, Sampling
from declai.protocol.peers import Peer
from declai.protocol.receipts import SignedReceipt, acceptance_of
from declai.worker.node.settings import NodeSettings
from tests.support.parties import DOMAIN, FakeRegistry, Party, make_jobs
from tests.support.proxy import delaying_proxies

START_TIMEOUT_S = 120
SILENCE_TIMEOUT_S = 60
MAX_SEQUENCES = 32
MAX_CONTEXT_TOKENS = 2048
GREEDY = GenerationOptions(sampling=Sampling(temperature=0))


@dataclass(frozen=True)
class Request:
    """Token ids, how many to make, and when it comes (seconds after the start)."""

    prompt: list[int]
    num_tokens: int
    at_s: float = 0.0


@dataclass
class _Serving:
    request: Request
    jobs: list[StageJob]
    tokens_s: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    num_receipts: int = 0
    prompted: bool = False

    @property
    def is_over(self) -> bool:
        """Only then have all stages let go of it: each signs its receipt at the end."""
        return self.num_receipts == len(self.jobs)


@dataclass(frozen=True)
class Served:
    """What came of a request: when its tokens came, seconds after it did, and which they were."""

    timing: Timing
    token_ids: list[int]


class Ring:
    """The gateway's side."""

    def __init__(
        self,
        gateway: Party,
        links: NodeLinks,
        nodes: list[Party],
        peers: list[Peer],
        cuts: list[tuple[int, int]],
        stages: list[tuple[BaseProcess, Connection]],
        numeric_profile: int,
    ) -> None:
        """`nodes` listen where the other stages send to; `peers` are the same nodes where the gateway sends to."""
        self._gateway, self._links, self._nodes, self._peers, self._cuts = gateway, links, nodes, peers, cuts
        self._stages = stages
        self._numeric_profile = numeric_profile
        self._stage_of = {node.link[0]: stage for stage, node in enumerate(nodes)}

    def processor_s(self) -> float:
        """Processor time that the stages have taken so far."""
        stats = [
            Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split() for process, _ in self._stages
        ]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")

    def serve(self, requests: Sequence[Request]) -> list[Served]:
        """Serve requests as they come, at most `MAX_SEQUENCES` at once; their signatures are made beforehand.

        Raises RuntimeError when a job fails, a process ends, or nothing comes for a minute.
        """
        servings = [_Serving(request, self._jobs(request)) for request in requests]
        coming = deque(sorted(servings, key=lambda serving: serving.request.at_s))
        running: dict[bytes, _Serving] = {}
        began = heard = time.perf_counter()
        while coming or running:
            now = time.perf_counter()
            while coming and coming[0].request.at_s <= now - began and len(running) < MAX_SEQUENCES:
                serving = coming.popleft()
                running[serving.jobs[0].job_id] = serving
                self._dispatch(serving)
            next_s = coming[0].request.at_s - (now - began) if coming and len(running) < MAX_SEQUENCES else 1.0
            for inbound in self._links.poll(min(max(next_s, 0.001), 1.0)):
                heard = time.perf_counter()
                self._receive(inbound.sender, inbound.frame, running, heard - began)
            self._check(time.perf_counter() - heard if running else 0.0)
        return [self._served(serving) for serving in servings]

    def _jobs(self, request: Request) -> list[StageJob]:
        return make_jobs(
            self._gateway,
            self._nodes,
            num_prompt_tokens=len(request.prompt),
            max_tokens=request.num_tokens,
            options=GREEDY,
            salt=os.urandom(8),
            layers=self._cuts,
            numeric_profile=self._numeric_profile,
        )

    def _dispatch(self, serving: _Serving) -> None:
        for job, (_, pipe) in zip(serving.jobs, self._stages, strict=True):
            pipe.send(seal(job, self._gateway.signer).model_dump_json())

    def _receive(self, sender: bytes, frame: wire.Frame, running: dict[bytes, _Serving], now_s: float) -> None:
        if isinstance(frame, wire.Heartbeat) or (serving := running.get(frame.job)) is None:
            return
        if isinstance(frame, wire.Ready):
            self._prompt(serving)
        elif isinstance(frame, wire.Token):
            serving.tokens_s.append(now_s)
            serving.token_ids.append(frame.token_id)
        elif isinstance(frame, wire.Failed):
            raise RuntimeError(f"a job failed: {frame.code}: {frame.message}")
        elif isinstance(frame, wire.Receipt):
            receipt = SignedReceipt.from_frame(frame).receipt
            word = sign(acceptance_of(receipt, DOMAIN), DOMAIN, self._gateway.signer)
            self._links.send(self._peers[self._stage_of[sender]], wire.ReceiptAck(frame.job, word))
            serving.num_receipts += 1
            if serving.is_over:
                del running[frame.job]

    def _prompt(self, serving: _Serving) -> None:
        """Once: `ready` may come again before the prompt arrives."""
        if not serving.prompted:
            serving.prompted = True
            prompt = serving.request.prompt
            payload = struct.pack(f"<{len(prompt)}I", *prompt)
            self._links.send(self._peers[0], wire.Prompt(serving.jobs[0].job_id, len(prompt), payload))

    def _check(self, silence_s: float) -> None:
        if silence_s > SILENCE_TIMEOUT_S:
            raise RuntimeError(f"nothing came for {SILENCE_TIMEOUT_S} s")
        if not all(process.is_alive() for process, _ in self._stages):
            raise RuntimeError("a stage process has ended")

    @staticmethod
    def _served(serving: _Serving) -> Served:
        request = serving.request
        if len(serving.token_ids) != request.num_tokens:
            raise RuntimeError(f"{len(serving.token_ids)} tokens came, not {request.num_tokens}")
        return Served(Timing([at - request.at_s for at in serving.tokens_s], request.num_tokens), serving.token_ids)


@contextmanager
def ring(
    folder: Path,
    num_layers: int = 12,
    *,
    num_stages: int = 3,
    num_threads: int = 1,
    profile: str = "fp32",
    device: str = "cpu",
    delay_s: float = 0.0,
    cuda_graphs: bool = True,
) -> Iterator[Ring]:
    """Stage processes of equal parts of a model, ended on leaving; `delay_s` each way between stages."""
    from declai.chain.fields import NUMERIC_PROFILES

    limits = _limits() | {"cuda_graphs": cuda_graphs}
    bounds = [stage * num_layers // num_stages for stage in range(num_stages + 1)]
    cuts = list(itertools.pairwise(bounds))
    gateway, nodes = Party(), [Party() for _ in cuts]
    known = FakeRegistry([gateway], nodes)
    registry = ToldRegistry(known.gateways, known.holders, known.session)
    with ExitStack() as opened:
        links = NodeLinks(LinkKeyPair(*gateway.link), "tcp://127.0.0.1:0", lambda key: key in registry.holders)
        opened.callback(links.close)
        gateway.endpoint = links.endpoint
        stages = []
        for node, cut in zip(nodes, cuts, strict=True):
            keys = bytes(node.operator.key), bytes(node.signer.key), node.link
            plan = StagePlan(folder, *cut, num_layers, profile, device, num_threads, limits, *keys, registry)
            stages.append(_start(plan, opened))
        for node, (_, pipe) in zip(nodes, stages, strict=True):
            if not pipe.poll(START_TIMEOUT_S):
                raise RuntimeError("a stage process did not start")
            node.endpoint = pipe.recv()
        peers = [node.peer for node in nodes]
        if delay_s:
            proxies = opened.enter_context(delaying_proxies([node.endpoint for node in nodes], delay_s))
            for node, endpoint in zip(nodes, proxies, strict=True):
                node.endpoint = endpoint
        yield Ring(gateway, links, nodes, peers, cuts, stages, NUMERIC_PROFILES[profile])


def _limits() -> dict[str, int]:
    """A node's own defaults where it has some. Without reuse: rounds repeat prompts, and the references have none."""
    names = ("max_cache_bytes", "prefill_chunk_tokens", "mixed_prefill_tokens")
    defaults = {name: NodeSettings.model_fields[name].default for name in names}
    return defaults | {"max_sequences": MAX_SEQUENCES, "max_context_tokens": MAX_CONTEXT_TOKENS, "prefix_reuse": False}


def _start(plan: StagePlan, opened: ExitStack) -> tuple[BaseProcess, Connection]:
    """A stage process that ends with the pipe to it, and is killed where it does not."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=run_stage, args=(plan, theirs), daemon=True)
    process.start()
    theirs.close()

    def end() -> None:
        ours.close()
        process.join(5)
        process.kill()
        process.join()

    opened.callback(end)
    return process, ours
