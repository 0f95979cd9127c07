"""Plans: valid on every market, and as good as the best of all plans on every small one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from declai.planning.placement import (
    DEFAULT_BYTES_PER_S,
    DEFAULT_RTT_S,
    RELAYED_HOP_S,
    Demand,
    LinkSpeed,
    NodeOffer,
    NoPlan,
    Plan,
    PlannedStage,
    place,
)


def address(index: int) -> str:
    return f"0x{index:040x}"


def offer(index: int, first_layer: int, end_layer: int, price: int = 10**15, speed: float = 1e-4) -> NodeOffer:
    return NodeOffer(address(index), first_layer, end_layer, price, 2 * price, speed)


Links = dict[tuple[str, str], LinkSpeed]


def score(stages: tuple[PlannedStage, ...], demand: Demand, links: Links) -> float:
    """The objective, straight from its definition."""
    total = 0.0
    for stage in stages:
        o = stage.offer
        tokens_price = o.prompt_price * demand.num_prompt_tokens + o.output_price * demand.num_output_tokens
        total += tokens_price * stage.num_layers * demand.tier_bps / 10**10 / 10**18
        num_tokens = demand.num_prompt_tokens + demand.num_output_tokens
        total += num_tokens * stage.num_layers * o.seconds_per_token_layer * demand.credits_per_second
    if len(stages) > 1:
        for here, there in zip(stages, stages[1:] + stages[:1], strict=True):
            pair = (here.offer.address, there.offer.address)
            link = links.get(pair)
            rtt = (link or links.get(pair[::-1]) or LinkSpeed(DEFAULT_RTT_S)).rtt_s
            seconds = (rtt / 2 + RELAYED_HOP_S * there.offer.relayed) * demand.num_output_tokens
            if there != stages[0]:
                bytes_per_s = (link and link.bytes_per_s) or DEFAULT_BYTES_PER_S
                seconds += num_tokens * demand.bytes_per_position / bytes_per_s
            total += seconds * demand.credits_per_second
    return total


def all_plans(offers: list[NodeOffer], num_layers: int) -> Iterator[tuple[PlannedStage, ...]]:
    for num_stages in range(1, min(len(offers), num_layers) + 1):
        for cuts in itertools.combinations(range(1, num_layers), num_stages - 1):
            ranges = list(itertools.pairwise((0, *cuts, num_layers)))
            for chosen in itertools.permutations(offers, num_stages):
                if all(o.first_layer <= a and b <= o.end_layer for o, (a, b) in zip(chosen, ranges, strict=True)):
                    yield tuple(PlannedStage(o, a, b) for o, (a, b) in zip(chosen, ranges, strict=True))


@st.composite
def markets(draw: st.DrawFn) -> tuple[list[NodeOffer], Demand, Links]:
    num_layers = draw(st.integers(1, 6))
    offers = []
    for index in range(draw(st.integers(1, 5))):
        first = draw(st.integers(0, num_layers - 1))
        end = draw(st.integers(first + 1, num_layers))
        price = draw(st.integers(0, 5)) * 10**15
        made = offer(index, first, end, price, draw(st.sampled_from([1e-5, 1e-4, 1e-3])))
        offers.append(replace(made, relayed=draw(st.booleans())))
    weight = draw(st.sampled_from([0.0, 1e-6, 1e-4, 1e-2]))
    num_bytes = draw(st.sampled_from([0, 4096]))
    demand = Demand(num_layers, draw(st.integers(1, 50)), draw(st.integers(1, 50)), 10_000, weight, num_bytes)
    pairs = list(itertools.permutations([o.address for o in offers], 2))
    measured = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    speeds = st.builds(LinkSpeed, st.sampled_from([1e-4, 1e-2, 0.3]), st.sampled_from([None, 1e4, 1e9]))
    return offers, demand, {pair: draw(speeds) for pair in measured}


def check_valid(plan: Plan, offers: list[NodeOffer], num_layers: int) -> None:
    edges = [stage.first_layer for stage in plan.stages] + [plan.stages[-1].end_layer]
    assert edges[0] == 0
    assert edges[-1] == num_layers
    assert all(a < b for a, b in itertools.pairwise(edges))
    assert [s.end_layer for s in plan.stages[:-1]] == edges[1:-1]
    assert all(s.offer in offers and s.offer.first_layer <= s.first_layer for s in plan.stages)
    assert all(s.end_layer <= s.offer.end_layer for s in plan.stages)
    assert len({s.offer.address for s in plan.stages}) == len(plan.stages)


@settings(max_examples=300, deadline=None)
@given(markets())
def test_as_good_as_the_best_of_all_plans(market: tuple[list[NodeOffer], Demand, Links]) -> None:
    offers, demand, links = market
    best = min((score(stages, demand, links) for stages in all_plans(offers, demand.num_layers)), default=None)
    if best is None:
        with pytest.raises(NoPlan):
            place(offers, demand, links)
        return
    plan = place(offers, demand, links)
    check_valid(plan, offers, demand.num_layers)
    assert math.isclose(plan.score, score(plan.stages, demand, links), rel_tol=1e-9, abs_tol=1e-15)
    assert math.isclose(plan.score, best, rel_tol=1e-9, abs_tol=1e-14)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("measured", [False, True])
def test_large_markets_give_valid_plans(seed: int, measured: bool) -> None:
    random = Random(seed)
    num_layers, offers = 40, [offer(0, 0, 40, 10**17)]
    for index in range(1, 60):
        first = random.randrange(num_layers)
        offers.append(offer(index, first, random.randint(first + 1, num_layers), random.randint(1, 10**16)))
    links = {(address(a), address(b)): LinkSpeed(random.uniform(1e-4, 0.2)) for a in range(60) for b in range(a)}
    demand = Demand(num_layers, 100, 100, 25_000, random.choice([0.0, 1e-5, 1e-3]))
    check_valid(place(offers, demand, links if measured else {}), offers, num_layers)


def test_the_near_chain_is_preferred_and_the_wide_one_for_long_prompts() -> None:
    offers = [offer(1, 0, 2), offer(2, 2, 4), offer(3, 2, 4)]
    links = {
        (address(1), address(2)): LinkSpeed(0.05, 1e9),
        (address(1), address(3)): LinkSpeed(0.001, 1e6),
    }

    def second(demand: Demand) -> str:
        return place(offers, demand, links).stages[1].offer.address

    assert second(Demand(4, 10, 100, 10_000, 1e-3, 16_384)) == address(3)
    assert second(Demand(4, 10_000, 10, 10_000, 1e-3, 16_384)) == address(2)


def test_a_cheap_node_inside_a_dear_one_does_not_make_it_serve_twice() -> None:
    dear, cheap = offer(1, 0, 6, 10**16), offer(2, 2, 4, 0)
    helper = offer(3, 4, 6, 10**17)
    plan = place([dear, cheap, helper], Demand(6, 10, 10, 10_000, 0.0))
    assert [(s.offer.address, s.first_layer, s.end_layer) for s in plan.stages] == [(dear.address, 0, 6)]


def test_full_excluded_and_foreign_profiles_take_no_part() -> None:
    demand = Demand(4, 10, 10, 10_000, 1e-6)
    whole = offer(1, 0, 4)
    with pytest.raises(NoPlan) as caught:
        place([replace(whole, num_running=1)], demand)
    assert caught.value.uncovered == [(0, 4)]
    with pytest.raises(NoPlan):
        place([whole], demand, excluded=frozenset({whole.address}))
    with pytest.raises(NoPlan):
        place([whole], demand, numeric_profile=3)
    with pytest.raises(NoPlan) as caught:
        place([offer(1, 0, 1), offer(2, 2, 3)], demand)
    assert caught.value.uncovered == [(1, 2), (3, 4)]


def test_a_second_decides_between_price_and_speed() -> None:
    cheap, fast = offer(1, 0, 4, price=1, speed=1e-2), offer(2, 0, 4, price=10**16, speed=1e-5)
    patient, hurried = Demand(4, 10, 10, 10_000, 0.0), Demand(4, 10, 10, 10_000, 1.0)
    assert place([cheap, fast], patient).stages[0].offer is cheap
    assert place([cheap, fast], hurried).stages[0].offer is fast


def test_equal_inputs_give_equal_plans_in_any_order() -> None:
    offers = [offer(i, 0, 3) for i in range(4)] + [offer(i, 2, 6) for i in range(4, 8)]
    demand = Demand(6, 10, 10, 10_000, 1e-6)
    assert (
        len({place(list(order), demand).stages for order in itertools.islice(itertools.permutations(offers), 50)}) == 1
    )


@pytest.mark.parametrize("relayed", [0, 1])
def test_of_equal_nodes_the_reachable_one_is_taken(relayed: int) -> None:
    equal = [offer(0, 2, 4), offer(1, 2, 4)]
    equal[relayed] = replace(equal[relayed], relayed=True)
    plan = place([*equal, offer(2, 0, 2), offer(3, 4, 6)], Demand(6, 10, 10, 10_000, 1e-3))
    assert plan.stages[1].offer == equal[1 - relayed]
    alone = place([equal[relayed], offer(2, 0, 2), offer(3, 4, 6)], Demand(6, 10, 10, 10_000, 1e-3))
    assert alone.stages[1].offer == equal[relayed]
    assert alone.seconds == pytest.approx(plan.seconds + 10 * RELAYED_HOP_S)
