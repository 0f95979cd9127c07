"""`declai node stake`, `unstake` and `withdraw` on a chain whose clock the tests move."""

from __future__ import annotations

from pathlib import Path

import pytest

from declai.chain.contracts.nodes import Role
from declai.chain.pricing import UNITS_PER_CREDIT
from tests.support.desks import DAY_S, Desk

THAW_S = 7 * DAY_S


@pytest.fixture
def worker(desk: Desk, tmp_path: Path) -> Desk:
    """A desk whose operator has registered with the minimum."""
    key = str(tmp_path / "link.key")
    desk.ok("node", "register", "--signer", "signer", "--link-key", key, "--endpoint", "tcp://node.example:8082")
    return desk


def units(credits: int) -> str:
    return str(credits * UNITS_PER_CREDIT)


def test_stake_goes_in_thaws_and_comes_back_to_the_unit(worker: Desk) -> None:
    operator = worker.network.wallets["operator"].address
    held = worker.chain.token.balance_of(operator)
    assert worker.json("node", "stake", "55")["stake_units"] == units(155)
    begun = worker.json("node", "unstake", "55")
    assert (begun["stake_units"], begun["thawing_units"], begun["minimum_units"]) == (units(100), units(55), units(100))
    assert begun["locked_units"] == "0"
    assert begun["thaw_ends_at"] == worker.chain.timestamp() + THAW_S
    text = worker.fails("node", "withdraw")
    assert "55 credits thaw until" in text
    assert "try again then" in text
    worker.pass_time(THAW_S - 60)
    worker.fails("node", "withdraw")
    worker.pass_time(60)
    done = worker.json("node", "withdraw")
    assert (done["withdrawn_units"], done["thawing_units"], done["stake_units"]) == (units(55), "0", units(100))
    assert worker.chain.token.balance_of(operator) == held
    assert "no stake of" in worker.fails("node", "withdraw")


def test_more_thaw_begins_the_clock_anew(worker: Desk) -> None:
    worker.ok("node", "stake", "10")
    worker.ok("node", "unstake", "5")
    worker.pass_time(THAW_S - 60)
    assert worker.json("node", "unstake", "5")["thawing_units"] == units(10)
    worker.pass_time(60)
    assert "10 credits thaw until" in worker.fails("node", "withdraw")


def test_a_stake_below_the_minimum_makes_the_node_inactive_and_says_how_to_mend_it(worker: Desk) -> None:
    done = worker.run("node", "unstake", "40")
    assert done.code == 0
    assert "inactive until 40 credits are added with `declai node stake`" in done.err
    operator = worker.network.wallets["operator"].address
    assert not worker.chain.nodes.is_active(operator, Role.WORKER)
    worker.ok("node", "stake", "40")
    assert worker.chain.nodes.is_active(operator, Role.WORKER)


def test_recent_earnings_lock_what_would_stay(worker: Desk) -> None:
    operator = worker.network.wallets["operator"].address
    worker.settle(operator, 7 * UNITS_PER_CREDIT)  # locks ten times as much
    begun = worker.json("node", "unstake", "60")
    assert begun["locked_units"] == units(70)
    worker.pass_time(THAW_S)
    # The lock of earnings lasts their epoch and the next one, two days each: here they are long over.
    assert worker.json("node", "withdraw")["withdrawn_units"] == units(60)
    worker.ok("node", "unstake", "40")
    worker.pass_time(THAW_S)
    worker.settle(operator, UNITS_PER_CREDIT)
    done = worker.json("node", "withdraw")
    assert (done["withdrawn_units"], done["thawing_units"]) == (units(30), units(10))
    text = worker.fails("node", "withdraw")
    assert "recent earnings lock 10 credits of stake and there are not more: try again when the lock is over" in text
    worker.pass_time(4 * DAY_S)
    assert worker.json("node", "withdraw")["withdrawn_units"] == units(10)


@pytest.mark.parametrize("command", ["stake", "unstake"])
def test_amounts_that_are_none(worker: Desk, command: str) -> None:
    assert "name more than nothing" in worker.fails("node", command, "0", code=2)
    assert "'five' is not an amount" in worker.fails("node", command, "five", code=2)
    assert "finer than a base unit" in worker.fails("node", command, "1e-19", code=2)
    worker.fails("node", command, code=2)


def test_more_than_there_is(worker: Desk) -> None:
    assert "100.5 credits are more than the stake of 100" in worker.fails("node", "unstake", "100.5")
    assert "holds 9900 credits, 9901 are needed" in worker.fails("node", "stake", "9901")


@pytest.mark.parametrize("arguments", [("stake", "1"), ("unstake", "1"), ("deregister",)])
def test_who_registered_no_node_is_told_to(desk: Desk, arguments: tuple[str, ...]) -> None:
    assert "declai node register" in desk.fails("node", *arguments)
