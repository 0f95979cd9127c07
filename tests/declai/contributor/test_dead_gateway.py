"""A gateway accepts receipts and dies before it settles: `declai node claim` takes the node's pay from the session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from declai.chain.pricing import UNITS_PER_CREDIT, format_credits
from declai.devnet.processes import RedisAddress, start_chain
from tests.declai.contributor.serving import Serving
from tests.support.echo_network import running_network

BOND = UNITS_PER_CREDIT
HOUR_S = 3600


@pytest.fixture
def deserted(tmp_path: Path, redis_server: RedisAddress) -> Iterator[Serving]:
    """A node with a receipt, the gateway's word that it owes it, and no gateway any more."""
    with start_chain(tmp_path / "logs") as rpc_url, running_network(tmp_path, rpc_url, redis_server) as network:
        serving = Serving.of(network, tmp_path, 0)
        serving.ask()
        network.server.stop()
        yield serving


def test_the_node_takes_its_pay_from_the_session_once(deserted: Serving) -> None:
    desk, chain, node = deserted.desk, deserted.network.chain, deserted.node.address
    kept = deserted.kept()
    cost, session = kept.receipt.receipt.cost, kept.job.request.session
    budget, before = chain.ledger.session(session).budget, deserted.num_sent

    (waiting,) = desk.json(*deserted.claim, "--dry-run")["owed"]
    assert (waiting["status"], waiting["step"], waiting["accepted"]) == ("waiting", None, True)
    desk.pass_time(2 * HOUR_S)
    (due,) = desk.json(*deserted.claim, "--dry-run")["owed"]
    assert (due["status"], due["step"], due["result"]) == ("claimable", "open_claim", None)
    assert (due["cost_units"], due["bond_units"]) == (str(cost), str(BOND))
    assert deserted.num_sent == before  # it only looked

    refused = desk.run(*deserted.claim)
    assert refused.code == 1
    assert f"a claim's bond is 1 credits and {node} has 0 in the ledger" in refused.err
    desk.ok("credits", "deposit", "1", "--wallet", "node")

    deserted.kill_when_sent(*deserted.claim)
    assert chain.ledger.balance_of(node) == 0  # the bond is in the claim
    assert chain.ledger.session(session).num_claims == 1
    sent = deserted.num_sent
    (claimed,) = desk.json(*deserted.claim)["owed"]
    assert (claimed["status"], claimed["step"]) == ("claimed", None)
    assert deserted.num_sent == sent

    desk.pass_time(12 * HOUR_S)
    deserted.kill_when_sent(*deserted.claim)
    sent = deserted.num_sent
    for _ in range(2):
        assert desk.json(*deserted.claim)["owed"] == []
        assert "Nothing is owed." in desk.ok(*deserted.claim)
    assert deserted.num_sent == sent
    assert chain.ledger.balance_of(node) == BOND + cost
    state = chain.ledger.session(session)
    assert (state.budget, state.settled, state.num_claims) == (budget, cost, 0)
    earned = desk.json("node", "earnings", "--wallet", "node")
    assert (earned["claimed_units"], earned["settled_units"]) == (str(cost), "0")


def test_each_call_tells_what_it_did(deserted: Serving) -> None:
    desk, kept = deserted.desk, deserted.kept()
    cost, request = format_credits(kept.receipt.receipt.cost), "0x" + kept.job.request_digest.hex()
    desk.ok("credits", "deposit", "1", "--wallet", "node")
    out = desk.ok(*deserted.claim)
    assert f"{cost} credits in 1 receipt that no batch paid" in out
    desk.pass_time(2 * HOUR_S)
    text = desk.fails(*deserted.claim, "--request", "0x" + "ab" * 32)
    assert f"no unpaid receipt for 0x{'ab' * 32}: a batch paid it, or this node has none for it" in text
    assert "is not how a request's hash (x-declai-request) begins" in desk.fails(
        *deserted.claim, "--request", "0x1234", code=2
    )
    out = desk.ok(*deserted.claim, "--request", request[:14])
    assert f"{request[:12]}" in out
    assert "open claim: done" in out
    desk.pass_time(12 * HOUR_S)
    assert "pay claim: done" in desk.ok(*deserted.claim)


def test_two_calls_at_once_take_one_step(deserted: Serving) -> None:
    """The second finds the first at work; a call on another copy of the store finds that it was overtaken."""
    desk, chain, node = deserted.desk, deserted.network.chain, deserted.node.address
    desk.ok("credits", "deposit", "2", "--wallet", "node")
    desk.pass_time(2 * HOUR_S)
    deserted.rpc("evm_setAutomine", False)
    first = deserted.start(*deserted.claim)
    deserted.wait_for_sent()
    assert "another `declai node claim` is at work" in desk.fails(*deserted.claim)
    elsewhere = deserted.copy_store()
    second = deserted.start("node", "claim", "--wallet", "node", "--config", str(elsewhere), "--json")
    deserted.wait_for_sent(2)
    deserted.rpc("evm_setAutomine", True)
    deserted.rpc("evm_mine")
    assert first.wait(30) == 0
    out, err = second.communicate(timeout=30)
    assert second.returncode == 0, err
    assert b'"result": "overtaken"' in out
    assert chain.ledger.balance_of(node) == BOND
    assert chain.ledger.session(deserted.kept().job.request.session).num_claims == 1
