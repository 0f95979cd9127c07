"""Prices, amounts and trees: exact, rounded down once, and every leaf provable."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from declai.chain.errors import InvalidAmount
from declai.chain.merkle import SumTree, batch_root, header_block, payout_word, verify_sum_proof
from declai.chain.pricing import Tier, format_credits, gateway_fee, parse_credits, request_cost, stage_cost

tokens = st.integers(0, 2**32 - 1)
prices = st.integers(0, 2**96)
leaves = st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 2**100)), min_size=1, max_size=40)


@given(tokens, tokens, prices, prices, st.integers(1, 1000), st.sampled_from(Tier))
def test_a_stage_costs_the_exact_price_rounded_down(
    prompt: int, output: int, prompt_price: int, output_price: int, layers: int, tier: Tier
) -> None:
    cost = stage_cost(
        num_prompt_tokens=prompt,
        num_output_tokens=output,
        prompt_price=prompt_price,
        output_price=output_price,
        num_layers=layers,
        tier=tier,
    )
    factor = {Tier.RESEARCH: 1, Tier.PRODUCTION: Fraction(5, 2), Tier.REALTIME: 5}[tier]
    exact = Fraction(prompt * prompt_price + output * output_price) * layers * factor / 10**6
    assert 0 <= exact - cost < 1


@given(st.lists(st.integers(0, 2**100), max_size=20), st.integers(0, 2000))
def test_a_request_costs_its_stages_and_the_fee(costs: list[int], fee_bps: int) -> None:
    assert request_cost(costs, fee_bps) == sum(costs) + gateway_fee(costs, fee_bps)
    assert gateway_fee(costs, fee_bps) * 10_000 <= sum(costs) * fee_bps


@given(st.integers(0, 2**128))
def test_credits_read_back_as_they_were_written(units: int) -> None:
    text = format_credits(units)
    assert parse_credits(text) == units
    assert Decimal(text) * 10**18 == units if units < 10**27 else True


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1,5", "1e99", "0.0000000000000000001", "abc", "0x10"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmount):
        parse_credits(text)


@given(leaves, st.data())
def test_every_receipt_is_proved_and_no_other(items: list[tuple[bytes, int]], data: st.DataObject) -> None:
    tree = SumTree(items)
    assert tree.total == sum(cost for _, cost in items)
    index = data.draw(st.integers(0, len(items) - 1))
    receipt, cost = items[index]
    proof = tree.proof(index)
    assert verify_sum_proof(tree.root, tree.total, len(items), receipt, cost, index, proof)
    assert not verify_sum_proof(tree.root, tree.total, len(items), receipt, cost + 1, index, proof)
    assert not verify_sum_proof(tree.root, tree.total + 1, len(items), receipt, cost, index, proof)
    assert not verify_sum_proof(tree.root, tree.total, len(items) + 1, receipt, cost, index, proof)
    assert not verify_sum_proof(tree.root, tree.total, len(items), bytes(32), cost, index, proof) or receipt == bytes(
        32
    )
    assert not verify_sum_proof(tree.root, tree.total, len(items), receipt, cost, len(items), proof)


def test_an_empty_tree_sums_to_nothing() -> None:
    tree = SumTree([])
    assert (tree.total, tree.top, tree.num_leaves) == (0, bytes(32), 0)
    with pytest.raises(IndexError):
        tree.proof(0)


def test_a_batch_commits_to_every_payout_and_every_subroot() -> None:
    node, other = "0x" + "11" * 20, "0x" + "22" * 20
    words = [payout_word(node, 5), payout_word(other, 2**96 - 1)]
    header = sha256(header_block([b"a" * 32, b"b" * 32], b"link")).digest()
    root = batch_root(words, header)
    assert root != batch_root(words[:1], header)
    assert root != batch_root([payout_word(node, 6), words[1]], header)
    assert root != batch_root(words, sha256(header_block([b"a" * 32, b"c" * 32], b"link")).digest())
    with pytest.raises(OverflowError, match="96 bits"):
        payout_word(node, 2**96)
