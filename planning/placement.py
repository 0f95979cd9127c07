"""Which nodes serve which layers of one request: a pure function of offers, request and measured links.

A plan cuts the layers [0, num_layers) into contiguous ranges, one node each, no node twice. It has the least
`price + seconds * credits_per_second`, so one number says what a second is worth to this request.

Without the rule "no node twice" the best plan is a shortest path over (layer, node), closed by the edge that feeds
tokens back from the last node to the first. The rule is put back by branch and bound: where a path comes back to a
node, that node must end before the gap, begin after it, or serve through it, and each case is solved again.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from declai.chain.pricing import credits_per_layer
from declai.planning.errors import NoPlan

# Between two nodes while nothing is measured: one site.
DEFAULT_RTT_S = 0.0005
DEFAULT_BYTES_PER_S = 125e6
# What a token takes longer to a node that nobody can connect to: once more through the internet and the gateway.
RELAYED_HOP_S = 0.01
# After this many cases the search goes for the first valid plan it can reach, no longer for the best.
MAX_CASES = 64
# Scores closer than this are equal: rounding, far below one base unit's worth of anything.
TOLERANCE_CREDITS = 1e-15


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """What was measured from one node to another; `bytes_per_s` is that way alone, the round trip counts both ways."""

    rtt_s: float
    bytes_per_s: float | None = None


# By (sender, receiver). A round trip that is missing is the other way's, or the default.
LinkSpeeds = Mapping[tuple[str, str], LinkSpeed]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class NodeOffer:
    """What one live node can do now: it may serve any part of the layers [first_layer, end_layer).

    Prices are base units per million token-layers; `seconds_per_token_layer` is measured on the node itself. What is
    sent to a `relayed` node goes through the gateway.
    """

    address: str
    first_layer: int
    end_layer: int
    prompt_price: int
    output_price: int
    seconds_per_token_layer: float
    num_running: int = 0
    capacity: int = 1
    numeric_profile: int = 0
    relayed: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """What the plan is for. `credits_per_second` weighs time against price; a position's hidden states have
    `bytes_per_position`."""

    num_layers: int
    num_prompt_tokens: int
    num_output_tokens: int
    tier_bps: int
    credits_per_second: float
    bytes_per_position: int = 0


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """The layers [first_layer, end_layer) on the node of `offer`."""

    offer: NodeOffer
    first_layer: int
    end_layer: int

    @property
    def num_layers(self) -> int:
        return self.end_layer - self.first_layer


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages in order. `score` and `seconds` are estimates; what is charged is computed from the receipts."""

    stages: tuple[PlannedStage, ...]
    score: float
    seconds: float


def place(
    offers: Sequence[NodeOffer],
    demand: Demand,
    links: LinkSpeeds = MappingProxyType({}),
    *,
    excluded: frozenset[str] = frozenset(),
    numeric_profile: int | None = None,
) -> Plan:
    """The plan with the least score; ties go to the lower addresses, so equal inputs give equal plans.

    Nodes at their capacity, in `excluded`, or of another profile than the one asked for take no part.

    Raises:
        NoPlan: the free nodes cannot cover all layers.
    """
    usable = sorted(
        (
            offer
            for offer in offers
            if offer.num_running < offer.capacity
            and offer.address not in excluded
            and (numeric_profile is None or offer.numeric_profile == numeric_profile)
            and offer.first_layer < min(offer.end_layer, demand.num_layers)
        ),
        key=lambda offer: offer.address,
    )
    uncovered = _uncovered(usable, demand.num_layers)
    if uncovered:
        raise NoPlan(demand.num_layers, uncovered)
    market = _Market(usable, demand, links)
    return market.plan(_branch_and_bound(market))


def _price(offer: NodeOffer, demand: Demand) -> float:
    """Of one layer, in credits."""
    return credits_per_layer(
        num_prompt_tokens=demand.num_prompt_tokens,
        num_output_tokens=demand.num_output_tokens,
        prompt_price=offer.prompt_price,
        output_price=offer.output_price,
        tier_bps=demand.tier_bps,
    )


def _uncovered(offers: Sequence[NodeOffer], num_layers: int) -> list[tuple[int, int]]:
    held = np.zeros(num_layers, dtype=bool)
    for offer in offers:
        held[offer.first_layer : offer.end_layer] = True
    edges = np.flatnonzero(np.diff(np.concatenate(([1], held.astype(np.int8), [1]))))
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]


# A path is the node's index for every layer; `allowed[l, i]` says that node i may serve layer l in this case.
Path = tuple[int, ...]
Allowed = NDArray[np.bool_]


class _Market:
    """The numbers of one problem: cost per layer of each node, cost of each hop between two, all in credits."""

    def __init__(self, offers: Sequence[NodeOffer], demand: Demand, links: LinkSpeeds) -> None:
        self.offers = offers
        num_tokens = demand.num_prompt_tokens + demand.num_output_tokens
        self.layer_seconds = np.array([num_tokens * o.seconds_per_token_layer * (1 + o.num_running) for o in offers])
        price = np.array([_price(offer, demand) for offer in offers])
        self.layer_cost = price + self.layer_seconds * demand.credits_per_second
        rtt, bytes_per_s = self._matrices(links)
        # A token crosses each link once, one way: as hidden states forth, as its id from the last node back.
        num_bytes = demand.bytes_per_position * num_tokens
        enter_seconds = np.array([RELAYED_HOP_S * o.relayed for o in offers])
        enter_all = np.where(np.eye(len(offers), dtype=bool), 0.0, enter_seconds)
        self.back_seconds = (rtt / 2 + enter_all) * demand.num_output_tokens
        self.hop_seconds = self.back_seconds + num_bytes / bytes_per_s
        self.back_cost = self.back_seconds * demand.credits_per_second
        self.hop_cost = self.hop_seconds * demand.credits_per_second
        self.enter_cost = enter_seconds * demand.num_output_tokens * demand.credits_per_second
        uniform_seconds = DEFAULT_RTT_S / 2 * demand.num_output_tokens + num_bytes / DEFAULT_BYTES_PER_S
        self.uniform_hop_cost = uniform_seconds * demand.credits_per_second
        first_layers = np.array([o.first_layer for o in offers])
        end_layers = np.array([o.end_layer for o in offers])
        layers = np.arange(demand.num_layers)[:, None]
        self.allowed: Allowed = (layers >= first_layers) & (layers < end_layers)

    def _matrices(self, links: LinkSpeeds) -> tuple[Floats, Floats]:
        """Round trips in seconds and bytes per second from each node to each; on the diagonal no time passes."""
        size = (len(self.offers), len(self.offers))
        rtt, bytes_per_s = np.full(size, DEFAULT_RTT_S), np.full(size, DEFAULT_BYTES_PER_S)
        index = {offer.address: i for i, offer in enumerate(self.offers)}
        self.uniform = True
        for (a, b), link in links.items():
            if a in index and b in index and a != b:
                self.uniform = False
                rtt[index[a], index[b]] = link.rtt_s
                bytes_per_s[index[a], index[b]] = link.bytes_per_s or DEFAULT_BYTES_PER_S
                if (b, a) not in links:
                    rtt[index[b], index[a]] = link.rtt_s
        np.fill_diagonal(rtt, 0.0)
        np.fill_diagonal(bytes_per_s, np.inf)
        return rtt, bytes_per_s

    def score(self, path: Path) -> float:
        return float(self._along(path, self.layer_cost, self.hop_cost, self.back_cost))

    def _along(self, path: Path, layers: Floats, hops: Floats, back: Floats) -> np.float64:
        nodes = np.array(path)
        total: np.float64 = layers[nodes].sum() + hops[nodes[:-1], nodes[1:]].sum() + back[nodes[-1], nodes[0]]
        return total

    def plan(self, path: Path) -> Plan:
        stages, first_layer = [], 0
        for index, group in itertools.groupby(path):
            end_layer = first_layer + sum(1 for _ in group)
            stages.append(PlannedStage(self.offers[index], first_layer, end_layer))
            first_layer = end_layer
        seconds = self._along(path, self.layer_seconds, self.hop_seconds, self.back_seconds)
        return Plan(tuple(stages), self.score(path), float(seconds))


@dataclass(frozen=True, slots=True)
class _Case:
    """A part of all plans and the shortest path in it: a lower bound, and the best of them if it repeats no node."""

    score: float
    depth: int
    path: Path
    allowed: Allowed


def _branch_and_bound(market: _Market) -> Path:
    """The best path that serves no node twice. Cases are opened cheapest first, so the first valid one is the best."""
    cases: list[tuple[float, int, _Case]] = []
    order = itertools.count()
    root = _solve(market, market.allowed, depth=0)
    assert root is not None, "every layer has a holder"
    heapq.heappush(cases, (root.score, next(order), root))
    num_opened = 0
    while True:
        # Some plan is always there (of those that hold the next layer take the one that reaches furthest, and again),
        # the cases keep all plans among them and get smaller: the search ends with a plan before they run out.
        case = heapq.heappop(cases)[-1]
        repeat = _first_repeat(case.path)
        if repeat is None:
            return case.path
        num_opened += 1
        if num_opened == MAX_CASES:
            cases = [(-c.depth, i, c) for _, i, c in cases]
            heapq.heapify(cases)
        for allowed in _split(case.allowed, *repeat):
            part = _solve(market, allowed, case.depth + 1)
            if part is not None:
                heapq.heappush(cases, (part.score if num_opened < MAX_CASES else -part.depth, next(order), part))


def _first_repeat(path: Path) -> tuple[int, int] | None:
    """(node, first layer of the gap) of a node that the path leaves and comes back to."""
    left: dict[int, int] = {}
    for layer in range(1, len(path)):
        if path[layer] != path[layer - 1]:
            left[path[layer - 1]] = layer
            if path[layer] in left:
                return path[layer], left[path[layer]]
    return None


def _split(allowed: Allowed, node: int, gap: int) -> tuple[Allowed, Allowed, Allowed]:
    """Every valid plan is in one of these: `node` ends before the gap, begins after its first layer, or serves it."""
    ends_before, begins_after, serves_through = allowed.copy(), allowed.copy(), allowed.copy()
    ends_before[gap:, node] = False
    begins_after[:gap, node] = False
    serves_through[gap - 1 : gap + 1] = np.arange(allowed.shape[1]) == node
    return ends_before, begins_after, serves_through


def _solve(market: _Market, allowed: Allowed, depth: int) -> _Case | None:
    """The shortest closed path over all layers, nodes may repeat; None when some layer has nobody.

    One backward pass gives the best path from every first node without the closing edge. With the cheapest closing
    edge that is a lower bound for this first node; only first nodes whose bound beats the best are solved exactly.
    """
    if not allowed.any(axis=1).all():
        return None
    best_score, best = np.inf, None
    whole = np.flatnonzero(allowed.all(axis=0))
    if len(whole):
        best = (int(whole[market.layer_cost[whole].argmin()]),) * len(allowed)
        best_score = market.score(best)
    # From here on more than one stage: the first node again at the end would be a repeat.
    closing = market.back_cost.copy()
    np.fill_diagonal(closing, np.inf)
    closing[~allowed[-1]] = np.inf
    open_cost, steps = _backward(market, allowed, np.zeros(len(market.offers)))
    bounds = open_cost + closing.min(axis=0)
    for first in np.argsort(bounds, kind="stable"):
        if bounds[first] >= best_score:
            break
        path = _follow(steps, int(first))
        score = _closed_score(market, path)
        if score > bounds[first] + TOLERANCE_CREDITS:
            _, exact_steps = _backward(market, allowed, closing[:, first])
            path = _follow(exact_steps, int(first))
            score = _closed_score(market, path)
        if score < best_score:
            best_score, best = score, path
    return _Case(best_score, depth, best, allowed) if best is not None else None


def _closed_score(market: _Market, path: Path) -> float:
    return market.score(path) if path[0] != path[-1] else np.inf


def _backward(market: _Market, allowed: Allowed, last: Floats) -> tuple[Floats, list[Indices]]:
    """Least cost from each node at layer 0 to the end, when ending on a node costs `last`; and the steps."""
    layer_cost = np.where(allowed, market.layer_cost, np.inf)
    cost = last + layer_cost[-1]
    nodes = np.arange(len(cost))
    steps: list[Indices] = []
    for here in layer_cost[-2::-1]:
        if market.uniform:
            entered = cost + market.enter_cost
            cheapest = entered.argmin()
            by_link = entered[cheapest] + market.uniform_hop_cost
            step = np.where(cost <= by_link, nodes, cheapest)
            through = np.minimum(cost, by_link)
        else:
            all_through = market.hop_cost + cost
            step = all_through.argmin(axis=1)
            through = all_through[nodes, step]
        cost = here + through
        steps.append(step)
    return cost, steps[::-1]


def _follow(steps: list[Indices], node: int) -> Path:
    path = [node]
    for step in steps:
        node = int(step[node])
        path.append(node)
    return tuple(path)
