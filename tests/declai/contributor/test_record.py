"""`declai node faults` and `earnings`: the chain's word on a node, for whoever asks."""

from __future__ import annotations

import pytest
from eth_account.signers.local import LocalAccount

from declai.chain.contracts.nodes import Role
from declai.chain.messages import new_account
from declai.chain.pricing import UNITS_PER_CREDIT, format_credits
from tests.support.desks import Desk, equivocate


@pytest.fixture
def signer() -> LocalAccount:
    return new_account()


@pytest.fixture
def node(desk: Desk, signer: LocalAccount) -> str:
    """A worker whose wallet the desk has."""
    return str(desk.keep("worker", desk.world.register(Role.WORKER, signer)).address)


def test_a_node_without_a_blemish(desk: Desk, node: str) -> None:
    found = desk.json("node", "faults", "--wallet", "worker")
    assert found == {
        "node": node,
        "reputation_units": str(UNITS_PER_CREDIT // 2),
        "slashed_units": "0",
        "is_jailed": False,
        "jailed_until": 0,
        "faults": [],
    }
    out = desk.ok("node", "faults", node)
    assert "No faults." in out
    assert "reputation  0.5000" in out


def test_failed_work_slashed_stake_and_jail_in_their_order(desk: Desk, node: str, signer: LocalAccount) -> None:
    gateway = desk.settle(node, UNITS_PER_CREDIT, fault=3 * UNITS_PER_CREDIT)
    equivocate(desk, node, signer)
    found = desk.json("node", "faults", signer.address)  # whose signer it is, is known
    assert found["node"] == node
    whats = [(fault["what"], fault["amount_units"]) for fault in found["faults"]]
    half = str(50 * UNITS_PER_CREDIT)
    assert whats[0] == ("failed work", str(3 * UNITS_PER_CREDIT))
    assert set(whats[1:]) == {
        ("stake slashed", half),
        ("jailed", "0"),
        ("signed two receipts for one assignment", half),
    }
    assert found["faults"][0]["detail"] == f"gateway {gateway}"
    assert found["slashed_units"] == half
    assert found["is_jailed"]
    assert int(found["reputation_units"]) < UNITS_PER_CREDIT // 2
    out = desk.ok("node", "faults", node)
    assert "slashed     50 credits" in out
    assert str(found["jailed_until"]) not in out, "people read dates"
    desk.pass_time(found["jailed_until"] - desk.chain.timestamp())
    assert not desk.json("node", "faults", node)["is_jailed"]


def test_earnings_are_counted_where_they_lie(desk: Desk, node: str) -> None:
    first, second = 5 * UNITS_PER_CREDIT + 1, 7
    desk.settle(node, first)
    desk.settle(desk.world.register(Role.WORKER).address, UNITS_PER_CREDIT)  # somebody else's
    desk.settle(node, second)
    found = desk.json("node", "earnings", "--wallet", "worker")
    assert found == {
        "node": node,
        "num_batches": 2,
        "settled_units": str(first + second),
        "claimed_units": "0",
        "ledger_units": str(first + second),
        "court_units": "0",
        "locked_stake_units": str(desk.chain.nodes.locked_stake(node)),
    }
    assert int(found["locked_stake_units"]) >= 10 * (first + second)
    assert f"settled       {format_credits(first + second)} credits" in desk.ok("node", "earnings", node)
    desk.ok("credits", "withdraw", "5", "--wallet", "worker")
    assert desk.json("node", "earnings", node)["ledger_units"] == str(first + second - 5 * UNITS_PER_CREDIT)


@pytest.mark.parametrize("command", ["faults", "earnings"])
def test_who_never_registered_has_no_record(desk: Desk, command: str) -> None:
    stranger = new_account().address
    assert f"{stranger} never registered a node" in desk.fails("node", command, stranger)
    assert "is not an address" in desk.fails("node", command, "0x12", code=2)


def test_the_record_outlives_the_registration(desk: Desk, node: str) -> None:
    desk.settle(node, UNITS_PER_CREDIT)
    desk.ok("node", "deregister", "--wallet", "worker")
    assert desk.json("node", "earnings", node)["num_batches"] == 1
    assert desk.json("node", "faults", node)["faults"] == []
