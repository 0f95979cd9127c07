"""The round trip of an 8 KiB frame between two nodes: over their own links, and through the gateway's relay.

Three processes on one machine: a node that asks, a node that answers, a gateway. Where only the answering node is
relayed, the question takes two hops and the answer one; where both are, each takes two.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from _kit import ROOT, record

sys.path.insert(0, str(ROOT))

import zmq
from zmq.utils import z85

from declai.api.nodes.hub import LinkHub
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.protocol import wire
from declai.protocol.peers import Peer

JOB = b"j" * 32
ADDRESSES = [f"0x{number:040x}" for number in range(3)]
KINDS = {"direct": (False, False), "relayed": (False, True), "both_relayed": (True, True)}
HONESTY = [
    "One machine: all three processes share its cores and the loopback. A real relayed hop adds the way to the gateway "
    "and back through the internet, which is tens of milliseconds where this is a fraction of one.",
    "One frame at a time: the gateway does nothing else meanwhile.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--bytes", type=int, default=8192)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for kind, relayed in KINDS.items():
        times = sorted(round_trips(relayed, options.rounds, options.bytes))
        figures[f"{kind}_ms_p50"], figures[f"{kind}_ms_p99"] = (
            round(times[len(times) * percent // 100], 3) for percent in (50, 99)
        )
    record("relay", figures | {"rounds": options.rounds, "bytes": options.bytes}, HONESTY)


def round_trips(relayed: tuple[bool, bool], num_rounds: int, num_bytes: int) -> list[float]:
    """Milliseconds of each round trip; `relayed` says it of the node that asks and of the one that answers."""
    keys = [LinkKeyPair(*map(z85.decode, zmq.curve_keypair())) for _ in range(3)]
    task: dict[str, Any] = {"relayed": relayed, "keys": [[k.public.hex(), k.secret.hex()] for k in keys]}
    task["endpoints"] = [f"tcp://127.0.0.1:{port}" for port in free_ports(3)]
    frame = wire.Hidden(JOB, 0, 1, "float32", bytes(num_bytes))
    with child("--as-gateway", task), child("--as-node", task):
        links, peer = open_node(task, 0), peers(task)[1]
        try:
            times = []
            for number in range(num_rounds + 100):
                began = time.perf_counter()
                links.send(peer, frame)
                while not links.poll(0.5):
                    links.watch_peers()
                    if not number:  # until all have found each other, what is sent may find nobody
                        links.send(peer, frame)
                if not number:
                    settle(links)
                times.append((time.perf_counter() - began) * 1e3)
            return times[100:]
        finally:
            links.close()


def settle(links: NodeLinks) -> None:
    """Answers to what was sent more than once."""
    while links.poll(1.0):
        pass


def answer(task: dict[str, Any]) -> None:
    links, peer = open_node(task, 1), peers(task)[0]
    while True:
        links.watch_peers()
        for inbound in links.poll(0.05):
            links.send(peer, inbound.frame)


def peers(task: dict[str, Any]) -> list[Peer]:
    """The two nodes and the gateway, as a job names them."""
    keys = [bytes.fromhex(public) for public, _ in task["keys"]]
    found = []
    for number in range(3):
        is_relayed = number < 2 and task["relayed"][number]
        way = {"endpoint": task["endpoints"][2], "relay": keys[2]} if is_relayed else {}
        given = {"address": ADDRESSES[number], "link_key": keys[number], "endpoint": task["endpoints"][number]}
        found.append(Peer.model_validate(given | way))
    return found


def open_node(task: dict[str, Any], number: int) -> NodeLinks:
    public, secret = map(bytes.fromhex, task["keys"][number])
    is_relayed = task["relayed"][number]
    links = NodeLinks(LinkKeyPair(public, secret), None if is_relayed else task["endpoints"][number], lambda key: True)
    if is_relayed:
        links.listen_through(peers(task)[2])
    return links


async def relay(task: dict[str, Any]) -> None:
    directory: Any = SimpleNamespace(admits=lambda key: True, is_relayed=lambda key: True)
    hub = LinkHub(LinkKeyPair(*map(bytes.fromhex, task["keys"][2])), task["endpoints"][2], directory)
    with hub.open(JOB, peers(task)[:2], lambda address, frame: None):
        await asyncio.Event().wait()


def free_ports(count: int) -> list[int]:
    from declai.devnet.processes import free_port

    return [free_port() for _ in range(count)]


@contextlib.contextmanager
def child(role: str, task: dict[str, Any]) -> Iterator[None]:
    """This file again, in a process of its own."""
    process = subprocess.Popen([sys.executable, __file__, role, json.dumps(task)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-node"]:
        answer(json.loads(sys.argv[2]))
    elif sys.argv[1:2] == ["--as-gateway"]:
        import uvloop

        uvloop.run(relay(json.loads(sys.argv[2])))
    else:
        main()
