"""The live nodes: what the registry says of them, joined with their heartbeats."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from declai.chain.client import Chain
from declai.chain.contracts.nodes import Offer, RegisteredNode, Role
from declai.chain.index import EventIndex
from declai.planning.placement import LinkSpeed, NodeOffer
from declai.protocol.joining import HEARTBEAT_S
from declai.protocol.peers import RELAY, Peer
from declai.protocol.wire import Heartbeat, unpack_reports

logger = logging.getLogger(__name__)
# A node that missed three heartbeats, and has had time for them, is taken for dead.
LIVE_S = 3.5 * HEARTBEAT_S


@dataclass(frozen=True)
class LiveNode:
    """A node that beat within the last seconds; `seen_at` on the monotonic clock, `links` as it measured them."""

    address: str
    heartbeat: Heartbeat
    seen_at: float
    links: Mapping[str, LinkSpeed]


@dataclass(frozen=True)
class ActiveWorkers:
    """The active workers at one block, where their links listen, and what they offer. Replaced, never changed."""

    workers: dict[str, RegisteredNode] = field(default_factory=dict)
    peers: dict[str, Peer] = field(default_factory=dict)
    by_key: dict[bytes, str] = field(default_factory=dict)
    offers: dict[tuple[str, bytes, int], Offer] = field(default_factory=dict)


class NodeDirectory:
    """Who is registered and who is alive. The event loop writes; the links' admission thread only reads `registry`."""

    def __init__(self, index: EventIndex, chain: Chain, relay_through: str | None = None) -> None:
        """`relay_through`: operator of the gateway that passes frames on to nodes that nobody can connect to."""
        self._relay_through = relay_through
        self._index = index
        self._chain = chain
        self._minimum_stake: dict[int, int] = {}
        self._live: dict[str, LiveNode] = {}
        self._num_running: Counter[str] = Counter()
        self.registry = ActiveWorkers()

    def refresh(self) -> None:
        """Follow the chain to its newest block. Blocking. Raises ChainError; what is known stays then."""
        state = self._index.sync()
        gateway = state.nodes.get(self._relay_through) if self._relay_through else None
        workers, peers = {}, {}
        for address, node in state.nodes.items():
            if self._is_active_worker(node) and (peer := self._peer(address, node, gateway)) is not None:
                workers[address], peers[address] = node, peer
        by_key = {node.link_key: address for address, node in workers.items()}
        self.registry = ActiveWorkers(workers, peers, by_key, dict(state.offers))

    def _peer(self, address: str, node: RegisteredNode, gateway: RegisteredNode | None) -> Peer | None:
        """Where a node's link listens; None when what it registered is no endpoint: nobody could speak with it."""
        endpoint, relay = node.endpoint, None
        if endpoint == RELAY and gateway is not None:
            endpoint, relay = gateway.endpoint, gateway.link_key
        known = self.registry.peers.get(address)
        if known is not None and (known.link_key, known.endpoint, known.relay) == (node.link_key, endpoint, relay):
            return known
        try:
            return Peer(address=address, link_key=node.link_key, endpoint=endpoint, relay=relay)
        except ValidationError:
            logger.debug("node %s registered no endpoint of ours: %.100r", address, node.endpoint)
            return None

    def _is_active_worker(self, node: RegisteredNode) -> bool:
        if not node.roles & Role.WORKER:
            return False
        if node.roles not in self._minimum_stake:  # a constant of the contract
            self._minimum_stake[node.roles] = self._chain.nodes.minimum_stake(node.roles)
        return node.stake >= self._minimum_stake[node.roles]

    def admits(self, link_key: bytes) -> bool:
        """Whether a link key belongs to an active worker: the answer to ZeroMQ's admission question."""
        return link_key in self.registry.by_key

    def is_relayed(self, link_key: bytes) -> bool:
        """Whether a link key belongs to an active worker that we pass frames on to."""
        registry = self.registry
        address = registry.by_key.get(link_key)
        return address is not None and registry.peers[address].relay is not None

    def worker(self, address: str) -> RegisteredNode | None:
        """An active worker's row in the registry."""
        return self.registry.workers.get(address)

    def peer(self, address: str) -> Peer:
        """Where an active worker's link listens."""
        return self.registry.peers[address]

    def beat(self, link_key: bytes, heartbeat: Heartbeat) -> None:
        """A heartbeat came over the link of this key."""
        address = self.registry.by_key.get(link_key)
        if address is not None:
            reports = unpack_reports(heartbeat.links)
            links = {report.address: LinkSpeed(report.rtt_s, report.bytes_per_s) for report in reports}
            self._live[address] = LiveNode(address, heartbeat, time.monotonic(), links)

    def live(self) -> list[LiveNode]:
        """The active workers that beat lately, by address."""
        oldest = time.monotonic() - LIVE_S
        workers = self.registry.workers
        self._live = {a: node for a, node in self._live.items() if node.seen_at >= oldest and a in workers}
        return sorted(self._live.values(), key=lambda node: node.address)

    def is_live(self, address: str) -> bool:
        node = self._live.get(address)
        return node is not None and node.seen_at >= time.monotonic() - LIVE_S

    def lost(self, address: str) -> None:
        """A node spoiled a job: it counts as dead until it beats again."""
        self._live.pop(address, None)

    def started(self, addresses: Iterable[str]) -> None:
        """A job of ours begins on these nodes: heartbeats tell it only seconds later."""
        self._num_running.update(addresses)

    def ended(self, addresses: Iterable[str]) -> None:
        self._num_running.subtract(addresses)
        self._num_running = +self._num_running

    def num_running(self, node: LiveNode) -> int:
        """Jobs on a node, as far as it or this gateway knows."""
        return max(node.heartbeat.jobs_running, self._num_running[node.address])

    def offer(self, node: LiveNode) -> Offer | None:
        """What a live node offers of the model that it has loaded."""
        beat = node.heartbeat
        return self.registry.offers.get((node.address, beat.model, beat.numeric_profile))

    def link_speeds(self) -> dict[tuple[str, str], LinkSpeed]:
        """What live nodes measured of their links, by (sender, receiver).

        Of the two reports of a round trip the longer one counts: a node alone cannot make itself look near.
        """
        live = {node.address: node.links for node in self.live()}
        found = {}
        for sender, links in live.items():
            for receiver, link in links.items():
                back = live.get(receiver, {}).get(sender, link)
                found[sender, receiver] = replace(link, rtt_s=back.rtt_s) if back.rtt_s > link.rtt_s else link
        return found

    def offers(self, model: bytes, manifest_cid: str) -> list[NodeOffer]:
        """What live nodes can do for one version of a model now: the layers that they offer and have loaded."""
        found = []
        for node in self.live():
            beat, offer = node.heartbeat, self.offer(node)
            if offer is None or beat.model != model or beat.manifest_cid != manifest_cid or beat.draining:
                continue
            found.append(
                NodeOffer(
                    address=node.address,
                    first_layer=max(offer.first_layer, beat.first_layer),
                    end_layer=min(offer.end_layer, beat.end_layer),
                    prompt_price=offer.prompt_price,
                    output_price=offer.output_price,
                    seconds_per_token_layer=beat.seconds_per_token_layer,
                    num_running=self.num_running(node),
                    capacity=beat.capacity,
                    numeric_profile=offer.numeric_profile,
                    relayed=self.registry.peers[node.address].relay is not None,
                )
            )
        return found
