"""Direct claims on a gateway's sessions: what was paid is not paid again, what was left out is."""

from __future__ import annotations

import pytest
from eth_account.signers.local import LocalAccount

from declai.chain.contracts.binding import Call
from declai.chain.contracts.ledger import SignedWork
from declai.chain.messages import digest
from declai.chain.sender import TransactionSender
from tests.support.books import Books, Market
from tests.support.world import rpc

BOND = 10**18


@pytest.fixture
def market(own_market: Market) -> Market:
    """Claims open hours after the work."""
    return own_market


def claim(books: Books, request: str, stage: int = 0, outputs: bytes | None = None) -> bytes:
    """The node of a stage claims its receipt, or one with other `outputs`; returns the assignment's digest."""
    market = books.market
    row = books.store.request(request)
    assert row is not None
    stored = books.store.request_stages(request)[stage]
    node = next(node for node in market.nodes if node.address == stored.assignment.node)
    market.world.deposit(node.operator, BOND)
    work = SignedWork(row.message, row.signature, stored.assignment, stored.assignment_signature)
    receipt = stored.receipt.receipt
    if outputs is not None:
        receipt = receipt.model_copy(update={"outputs": outputs})
    send(books, node.operator, market.chain.ledger.open_claim(work, receipt))
    return digest(stored.assignment, market.chain.domain)


def send(books: Books, account: LocalAccount, call: Call) -> None:
    TransactionSender(books.market.chain, account).send(call)


def pass_time(books: Books, seconds: int) -> None:
    rpc(books.market.chain, "evm_increaseTime", hex(seconds))
    rpc(books.market.chain, "evm_mine")


def test_a_claim_on_a_settled_receipt_falls_and_its_bond_goes_to_who_showed_it(books: Books) -> None:
    market, ledger = books.market, books.market.chain.ledger
    session = market.open_session()
    request, _ = books.serve(session)
    books.serve(session)
    books.settlement.run()
    settled = market.session(session).settled
    pass_time(books, 3 * 3600)
    bonds = ledger.balance_of(market.gateway.signer.address)
    assignment = claim(books, request, stage=1)
    assert market.session(session).num_claims == 1
    books.settlement.run()
    assert market.session(session).num_claims == 0
    assert ledger.direct_claim(assignment).pays_at == 0
    assert market.session(session).settled == settled
    assert ledger.balance_of(market.gateway.signer.address) == bonds + BOND
    state = books.index.sync()
    assert state.balances[market.gateway.signer.address] == bonds + BOND
    assert state.claims == {}


def test_a_claim_in_other_words_than_the_node_signed_falls(books: Books) -> None:
    """The batch shows the receipt that it signed; the claimed one is in no batch."""
    market, ledger = books.market, books.market.chain.ledger
    session = market.open_session()
    request, _ = books.serve(session)
    books.settlement.run()
    settled = market.session(session).settled
    pass_time(books, 3 * 3600)
    assignment = claim(books, request, outputs=b"o" * 32)
    payers = ledger.balance_of(market.payer.address)
    books.settlement.run()
    assert ledger.direct_claim(assignment).pays_at == 0
    assert market.session(session).settled == settled
    assert ledger.balance_of(market.payer.address) == payers + BOND
    assert books.index.sync().claims == {}


def test_a_claim_on_work_that_was_never_settled_is_paid(books: Books) -> None:
    market, ledger = books.market, books.market.chain.ledger
    session = market.open_session()
    request, _ = books.serve(session)
    books.store.exclude_session(session)  # a gateway that lost its books, say
    pass_time(books, 3 * 3600)
    assignment = claim(books, request)
    books.settlement.run()
    assert market.session(session).num_claims == 1
    pass_time(books, 12 * 3600)
    send(books, market.payer, ledger.pay_claim(bytes.fromhex(session[2:]), assignment))
    stage = books.store.request_stages(request)[0]
    assert market.session(session).settled == stage.cost
    assert books.index.sync().sessions[bytes.fromhex(session[2:])] == market.session(session)
