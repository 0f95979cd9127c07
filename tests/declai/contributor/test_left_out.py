"""A gateway settles and leaves a receipt out: its acceptance makes its stake liable, and the node gets its cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from declai.api.settlement.periodic import run_settlement
from declai.api.store.schema import requests, stages
from declai.chain.pricing import UNITS_PER_CREDIT, format_credits
from declai.devnet.chain_setup import fund
from declai.devnet.processes import RedisAddress, start_chain
from declai.ipfs.store import BlockStore
from tests.declai.contributor.serving import Serving
from tests.support.block_peers import Peer, serve
from tests.support.echo_network import Network, running_network

BOND = UNITS_PER_CREDIT
HALF_DAY_S = 12 * 3600


@pytest.fixture
def serving(tmp_path: Path, redis_server: RedisAddress) -> Iterator[Serving]:
    """A node whose receipt is accepted and not settled yet."""
    with start_chain(tmp_path / "logs") as rpc_url, running_network(tmp_path, rpc_url, redis_server) as network:
        found = Serving.of(network, tmp_path, 0)
        found.ask()
        yield found


def settle_without(network: Network, node: str) -> None:
    """The gateway drops a node's receipt from its books, charges the payer so much less, and settles."""
    with network.gateway.store.engine.begin() as db:
        row = db.execute(select(stages.c.request, stages.c.cost).where(stages.c.node == node)).one()
        cost = db.execute(select(requests.c.cost).where(requests.c.request == row.request)).scalar_one()
        db.execute(delete(stages).where(stages.c.node == node))
        left = str(int(cost) - int(row.cost))
        db.execute(update(requests).where(requests.c.request == row.request).values(cost=left))
    assert len(run_settlement(network.settings)) == 1


def test_the_gateways_stake_pays_what_it_accepted_and_left_out(serving: Serving) -> None:
    desk, chain, node = serving.desk, serving.network.chain, serving.node.address
    gateway = serving.network.operator.address
    cost = serving.kept().receipt.receipt.cost
    session = serving.kept().job.request.session
    settle_without(serving.network, node)
    settled, wallet = chain.ledger.session(session).settled, chain.token.balance_of(node)
    stake, sent = chain.nodes.node(gateway).stake, serving.num_sent

    (due,) = desk.json(*serving.claim, "--dry-run")["owed"]
    assert (due["status"], due["step"]) == ("challengeable", "challenge")
    assert (due["cost_units"], due["bond_units"]) == (str(cost), str(BOND))
    assert serving.num_sent == sent

    # Killed between the approval of the bond and the challenge: the next call goes on where it stopped.
    serving.kill_when_sent(*serving.claim)
    assert serving.num_sent == sent + 1
    assert chain.token.balance_of(node) == wallet
    (challenged,) = desk.json(*serving.claim)["owed"]
    assert challenged["result"] == "done"
    assert serving.num_sent == sent + 2
    assert chain.token.balance_of(node) == wallet - BOND
    (open_,) = desk.json(*serving.claim)["owed"]
    assert (open_["status"], open_["step"]) == ("challenged", None)

    desk.pass_time(HALF_DAY_S)
    out = desk.ok(*serving.claim)
    assert "decide: done" in out
    assert f"{format_credits(BOND + cost)} credits came from the court into the wallet" in out
    assert chain.token.balance_of(node) == wallet + cost
    sent = serving.num_sent
    for _ in range(2):
        assert "Nothing is owed." in desk.ok(*serving.claim)
    assert serving.num_sent == sent
    assert chain.token.balance_of(node) == wallet + cost
    # The payer pays no unit of it, the gateway pays it with a fine.
    assert chain.ledger.session(session).settled == settled
    fine = cost * chain.court.parameters().fine_bps // 10_000
    assert chain.nodes.node(gateway).stake == stake - cost - fine

    whats = [fault["what"] for fault in desk.json("node", "faults", gateway)["faults"]]
    assert whats == ["payout challenged", "stake slashed", "did not pay an accepted receipt"]


def test_the_signers_wallet_does_it_too_and_the_operator_fetches_the_rest(serving: Serving) -> None:
    desk, chain, signer = serving.desk, serving.network.chain, serving.node.signer
    desk.keep("hot", signer)
    claim = ["hot" if word == "node" and number == 3 else word for number, word in enumerate(serving.claim)]
    cost = serving.kept().receipt.receipt.cost
    settle_without(serving.network, serving.node.address)
    text = desk.fails(*claim)
    assert f"a challenge's bond is 1 credits and the wallet {signer.address} holds 0" in text
    desk.ok("credits", "send", signer.address, "1", "--wallet", "node")
    text = desk.fails(*claim)
    assert f"{signer.address} has too little ETH for gas" in text
    fund(chain, [signer.address])
    desk.ok(*claim)
    desk.pass_time(HALF_DAY_S)
    out = desk.ok(*claim)
    assert f"{format_credits(cost)} credits lie at the court for {serving.node.address}: claim with its wallet" in out
    assert chain.token.balance_of(signer.address) == BOND
    wallet, ether = (
        chain.token.balance_of(serving.node.address),
        chain.w3.eth.get_balance(serving.node.operator.address),
    )
    serving.rpc("anvil_setBalance", serving.node.address, "0x0")
    stuck = desk.run(*serving.claim, "--json")
    assert (stuck.code, json.loads(stuck.out)["court_units"]) == (1, str(cost))
    assert f"the court's money did not come: {serving.node.address} has too little ETH for gas" in stuck.err
    serving.rpc("anvil_setBalance", serving.node.address, hex(ether))
    done = desk.json(*serving.claim)
    assert (done["collected_units"], done["court_units"]) == (str(cost), "0")
    assert chain.token.balance_of(serving.node.address) == wallet + cost


def test_a_paid_receipt_is_owed_no_more_also_when_nobody_shows_the_batch(serving: Serving) -> None:
    desk, network = serving.desk, serving.network
    run_settlement(network.settings)
    network.server.stop()
    desk.pass_time(3 * 3600)
    done = desk.run(*serving.claim, "--dry-run")
    assert done.code == 0
    assert "unknown" in done.out
    assert "1 batch cannot be read now: try again later" in done.err
    # Nor does a gateway with a URL that is none stop the program.
    nodes = network.chain.nodes
    link_key = nodes.node(network.operator.address).link_key
    desk.world.send(network.operator, nodes.set_endpoint("tcp://127.0.0.1:9", "http://[no host", link_key))
    found = desk.json(*serving.claim)
    assert [(row["status"], row["step"]) for row in found["owed"]] == [("unknown", None)]
    assert len(found["unread_batches"]) == 1
    (risky,) = desk.json(*serving.claim, "--dry-run", "--even-unread")["owed"]
    assert risky["step"] == "open_claim"
    # Any peer's copy will do.
    with serve(Peer(BlockStore(network.settings.blocks_dir))) as url:
        serving.config.write_text(serving.config.read_text() + f'ipfs_peers = ["{url}"]\n')
        assert "Nothing is owed." in desk.ok(*serving.claim)
