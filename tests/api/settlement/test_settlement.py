"""Settlement on a real chain: debits are payouts and fee to the unit, every receipt is paid once, whatever happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import update

from declai.api.store.schema import requests
from declai.ipfs.cid import Cid
from declai.protocol.batch_checks import verify_request
from declai.protocol.batches import BatchFile, Header
from declai.protocol.errors import NotSettled
from tests.support.books import FEE_BPS, Books, price_of_stage
from tests.support.world import rpc


def settle_and_check(books: Books, cost_of: dict[str, int]) -> list[int]:
    """Settle all; every session's debit and all credits must be what was served. Returns the numbers of batches."""
    market = books.market
    before = market.balances()
    settled_before = {session: market.session(session).settled for session in cost_of}
    done = books.settlement.run()
    for session, cost in cost_of.items():
        assert market.session(session).settled - settled_before[session] == cost
    after = market.balances()
    assert sum(after.values()) - sum(before.values()) == sum(cost_of.values())
    assert books.settlement.run() == [], "a second run finds nothing"
    assert market.balances() == after
    return [row.batch for row in done]


def test_debits_are_payouts_and_fee_to_the_unit(books: Books) -> None:
    session, other = books.market.open_session(), books.market.open_session()
    before = books.market.balances()
    counts = [(5, 3), (1, 1), (70, 40)]
    costs = [books.serve(session, *each)[1] for each in counts]
    books.serve(other, 9, 2)
    earned = [price_of_stage(*each) for each in [*counts, (9, 2)]]
    fees = [3 * stage * FEE_BPS // 10_000 for stage in earned]
    assert costs == [3 * stage + fee for stage, fee in zip(earned[:3], fees[:3], strict=True)]
    settle_and_check(books, {session: sum(costs), other: 3 * earned[3] + fees[3]})
    after = books.market.balances()
    gained = {address: after[address] - before[address] for address in after}
    assert gained == {node.address: sum(earned) for node in books.market.nodes} | {
        books.market.gateway.address: sum(fees)
    }


def test_later_requests_are_settled_on_top_of_earlier_ones(books: Books) -> None:
    session = books.market.open_session()
    for _ in range(3):
        costs = [books.serve(session)[1] for _ in range(2)]
        settle_and_check(books, {session: sum(costs)})


def test_requests_that_end_out_of_order_are_paid_once(books: Books) -> None:
    """An old request still runs while newer ones are settled; then it ends and is settled below them."""
    session = books.market.open_session()
    slow, slower = books.admit(session), books.admit(session)
    costs = [books.serve(session)[1] for _ in range(3)]
    settle_and_check(books, {session: sum(costs)})
    cost = books.finish(slow, 20, 2)
    settle_and_check(books, {session: cost})
    later = books.serve(session)[1]
    settle_and_check(books, {session: later})
    books.admission.fail(slower, "lost")
    last = books.serve(session)[1]
    settle_and_check(books, {session: last})


def test_bounds_cut_a_backlog_into_batches(open_books: Callable[..., Books]) -> None:
    books = open_books(max_claims=2, max_receipts=7)
    sessions = [books.market.open_session() for _ in range(3)]
    costs = {session: sum(books.serve(session)[1] for _ in range(4)) for session in sessions}
    batches = settle_and_check(books, costs)
    assert len(batches) >= 6, "7 receipts are two requests of three stages"


def test_more_unacknowledged_requests_than_a_batch_lists_are_settled_all_the_same(
    open_books: Callable[..., Books],
) -> None:
    books = open_books(max_claims=2)
    session = books.market.open_session()
    slow = books.admit(session)
    costs = [books.serve(session)[1] for _ in range(5)]
    settle_and_check(books, {session: sum(costs)})
    settle_and_check(books, {session: books.finish(slow)})


def test_requests_that_end_while_a_batch_is_built_wait_for_the_next(books: Books) -> None:
    session = books.market.open_session()
    serving = threading.Thread(target=lambda: [books.serve(session) for _ in range(12)])
    serving.start()
    num_batches = 0
    while serving.is_alive():
        num_batches += len(books.settlement.run())
    serving.join()
    books.settlement.run()
    assert num_batches >= 1
    totals = books.store.session_totals(session)
    assert books.market.session(session).settled == totals.finished_total > 0


def test_a_session_that_cannot_be_settled_holds_up_nobody(books: Books) -> None:
    """One session was closed before it was settled; for another one the store was put back to an older state."""
    good, closed, odd = (books.market.open_session() for _ in range(3))
    market, ledger = books.market, books.market.chain.ledger
    books.serve(odd)
    books.settlement.run()
    with books.store.engine.begin() as db:
        db.execute(update(requests).where(requests.c.session == odd).values(batch=None))
    costs = [books.serve(session)[1] for session in (good, closed, odd)]
    snapshot = rpc(market.chain, "evm_snapshot")
    market.world.send(market.payer, ledger.close_session(bytes.fromhex(closed[2:])))
    rpc(market.chain, "evm_increaseTime", ledger.thaw_period_s())
    rpc(market.chain, "evm_mine")
    market.world.send(market.payer, ledger.finalize_close(bytes.fromhex(closed[2:])))
    settle_and_check(books, {good: costs[0], odd: 0})
    assert rpc(market.chain, "evm_revert", snapshot) is True


def test_a_reorganisation_that_drops_a_batch_sends_it_again(books: Books) -> None:
    market = books.market
    session = market.open_session()
    cost = books.serve(session)[1]
    snapshot = rpc(market.chain, "evm_snapshot")
    books.settlement.run()
    assert market.session(session).settled == cost
    assert rpc(market.chain, "evm_revert", snapshot) is True
    assert market.session(session).settled == 0
    later = books.serve(session)[1]
    settle_and_check(books, {session: cost + later})


def test_a_stuck_transaction_is_sent_again_with_a_higher_fee(open_books: Callable[..., Books]) -> None:
    books = open_books(stuck_after_s=0.5)
    session = books.market.open_session()
    cost = books.serve(session)[1]
    rpc(books.market.chain, "evm_setAutomine", False)
    settling = threading.Thread(target=books.settlement.run)
    settling.start()
    try:
        for _ in range(1000):
            batch = books.store.open_batch()
            if batch is not None and len(batch.transactions) > 1:
                break
            settling.join(0.02)
    finally:
        rpc(books.market.chain, "evm_setAutomine", True)
        rpc(books.market.chain, "evm_mine")
    settling.join(30)
    assert batch is not None
    assert len(batch.transactions) > 1
    settle_and_check(books, {session: 0})
    assert books.market.session(session).settled == cost


@pytest.mark.parametrize("depth", [3])
def test_a_batch_is_confirmed_at_its_depth_alone(open_books: Callable[..., Books], depth: int) -> None:
    books = open_books(depth=depth, stuck_after_s=0.4)
    session = books.market.open_session()
    books.serve(session)
    settling = threading.Thread(target=books.settlement.run)
    settling.start()
    while books.market.session(session).settled == 0:
        settling.join(0.02)
    settling.join(0.2)
    assert settling.is_alive()
    assert books.store.open_batch() is not None
    for _ in range(depth - 1):
        rpc(books.market.chain, "evm_mine")
    settling.join(30)
    assert books.store.open_batch() is None


def test_anyone_can_verify_a_request_from_the_chain_and_the_blocks(books: Books) -> None:
    session = books.market.open_session()
    served = [books.serve(session) for _ in range(3)]
    unsettled_index = books.index.sync()
    with pytest.raises(NotSettled):
        verify_request(served[0][0], books.facts(unsettled_index), books.blocks, None)
    books.settlement.run()
    state = books.index.sync()
    for request, cost in served:
        verdict = verify_request(request, books.facts(state), books.blocks, None)
        assert verdict.problems == []
        assert verdict.payer == books.market.payer.address
        assert sum(verdict.earnings.values()) <= verdict.cost <= cost
    last = verify_request(served[-1][0], books.facts(state), books.blocks, None)
    assert last.cost == served[-1][1]
    assert last.cost == last.fee + sum(last.earnings.values())


def test_a_gateway_that_lies_in_its_batch_file_is_found_out(books: Books) -> None:
    session = books.market.open_session()
    request, _ = books.serve(session)
    row = books.settlement.run()[0]
    header = Header.from_bytes(books.blocks.read_bytes(row.cid, 2**20))
    file = BatchFile.from_bytes(books.blocks.read_bytes(str(header.link), 2**20))
    entry = file.payouts[0].receipts[0]
    forged = entry.model_copy(update={"signature": entry.receipt.inputs + entry.receipt.outputs + b"\x1b"})
    payouts = [file.payouts[0].model_copy(update={"receipts": [forged]}), *file.payouts[1:]]
    thief = file.claims[0].model_copy(update={"cost": file.claims[0].cost - 1})
    state = books.index.sync()
    key = next(key for key, batch in state.batches.items() if batch.root == row.root)
    for lie in (file.model_copy(update={"payouts": payouts}), file.model_copy(update={"claims": [thief]})):
        link = Cid.parse(books.blocks.add(lie.to_bytes()))
        digest = Cid.parse(books.blocks.add(Header(header.subroots, link).to_bytes())).digest
        lying = state.copy()
        lying.batches[key] = replace(state.batches[key], header=digest)
        assert not verify_request(request, books.facts(lying), books.blocks, None).ok
