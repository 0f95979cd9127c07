"""The court on receipts as nodes sign them: records proved bad, and a compute dispute from its bond to its verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount

from declai.api.store.records import StoredStage
from declai.chain.contracts.binding import Call
from declai.chain.contracts.court import DisputePhase, DisputeVerdict, EquivocationProof
from declai.chain.contracts.jury import JuryPhase, Vote
from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Offer, Role
from declai.chain.errors import ContractRevert
from declai.chain.messages import InferenceReceipt, InferenceRequest, digest, sign
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.chain.sender import TransactionSender
from declai.devnet.processes import RedisAddress
from tests.support.books import MODEL, Books, Market, Party
from tests.support.world import rpc

MODEL_ID = model_id(MODEL)
NUM_AUDITORS = 8
GUILTY = 3_000_000


@pytest.fixture
def books(own_market: Market, tmp_path: Path, redis_server: RedisAddress) -> Iterator[Books]:
    books = Books(own_market, tmp_path, f"sqlite:///{tmp_path / 'gateway.db'}", redis_server.url)
    yield books
    books.close()


def served(books: Books) -> tuple[InferenceRequest, StoredStage, Party]:
    """A request, the middle stage of its job, and that stage's node."""
    request, _ = books.serve(books.market.open_session(), num_prompt_tokens=60, num_output_tokens=20)
    row = books.store.request(request)
    assert row is not None
    stage = books.store.request_stages(request)[1]
    node = next(node for node in books.market.nodes if node.address == stage.assignment.node)
    return row.message, stage, node


def evidence(books: Books, stage: StoredStage) -> EquivocationProof:
    signed = stage.receipt
    work = stage.assignment, stage.assignment_signature
    return EquivocationProof(books.market.gateway.address, *work, signed.receipt, signed.signature, signed.records)


def send(books: Books, account: LocalAccount, call: Call) -> None:
    TransactionSender(books.market.chain, account).send(call)


def pass_time(books: Books, seconds: int) -> None:
    rpc(books.market.chain, "evm_increaseTime", hex(seconds))
    rpc(books.market.chain, "evm_mine")


def test_records_of_an_honest_stage_prove_nothing(books: Books) -> None:
    _, stage, _ = served(books)
    stranger = books.market.world.rich()
    assert len(stage.receipt.records) == 3 * 254
    for index in range(3):
        with pytest.raises(ContractRevert, match="DisputeCourtNoFlaw"):
            send(books, stranger, books.market.chain.court.prove_bad_record(evidence(books, stage), index))


def test_records_of_other_weights_cost_half_the_stake(books: Books) -> None:
    market = books.market
    _, stage, node = served(books)
    records = bytearray(stage.receipt.records)
    records[254 + 30] ^= 1  # the second record's shard root
    head = stage.receipt.receipt.assignment
    for start in range(0, len(records), 254):
        head = hashlib.sha256(head + records[start : start + 254]).digest()
    receipt: InferenceReceipt = stage.receipt.receipt.model_copy(update={"outputs": head})
    signature = sign(receipt, market.chain.domain, node.signer)
    proof = EquivocationProof(
        market.gateway.address, stage.assignment, stage.assignment_signature, receipt, signature, bytes(records)
    )
    stake = market.chain.nodes.node(node.address).stake
    reporter = market.world.rich()
    send(books, reporter, market.chain.court.prove_bad_record(proof, 1))
    assert market.chain.nodes.node(node.address).stake == stake // 2
    assert market.chain.court.balance_of(reporter.address) == stake // 10
    assert market.chain.court.has_bad_records(node.address, receipt.assignment)
    assert not market.chain.nodes.is_active(node.address, Role.WORKER)


def seat_auditors(books: Books) -> list[LocalAccount]:
    """Auditors who hold all layers of the model, with seats."""
    market, auditors = books.market, []
    for _ in range(NUM_AUDITORS):
        auditor = market.world.register(Role.AUDITOR)
        send(books, auditor, market.chain.nodes.set_offer(MODEL_ID, Offer(0, 64, 0, 0, 0, 0)))
        send(books, auditor, market.chain.jury.take_seat())
        auditors.append(auditor)
    return auditors


def test_a_jury_convicts_and_the_payer_has_its_money_back(books: Books) -> None:
    market = books.market
    chain, court, jury = market.chain, market.chain.court, market.chain.jury
    auditors = {auditor.address: auditor for auditor in seat_auditors(books)}
    assert jury.num_seats() == NUM_AUDITORS
    pass_time(books, 1)  # who takes a seat in the second of the dispute came too late for it
    message, stage, node = served(books)
    challenger = market.world.rich()
    terms = court.dispute_parameters()
    send(books, challenger, chain.token.approve(court.address, terms.dispute_bond))
    send(books, challenger, court.open_dispute(evidence(books, stage), message, 2))
    dispute_id = court.dispute_over(digest(stage.assignment, chain.domain), 2)
    assert court.dispute(dispute_id).phase is DisputePhase.OPENING
    assert court.dispute(dispute_id).payer == market.payer.address

    send(books, node.operator, court.publish_opening(dispute_id, "bafkopening"))
    for _ in range(5):
        rpc(market.chain, "evm_mine")
    send(books, challenger, jury.draw_jury(dispute_id))
    assert jury.phase(dispute_id) == (JuryPhase.VOTING, 0)
    jurors = jury.round(dispute_id, 0).jurors
    assert len(jurors) == 5

    votes = {juror: Vote(GUILTY + i, bytes(32), i.to_bytes(32)) for i, juror in enumerate(jurors)}
    for juror, vote in votes.items():
        commitment = vote.commitment(chain.chain_id, jury.address, dispute_id, 0, juror)
        send(books, auditors[juror], jury.commit_vote(dispute_id, commitment))
    pass_time(books, 12 * 3600)
    for juror, vote in votes.items():
        send(books, auditors[juror], jury.reveal_vote(dispute_id, vote))
    pass_time(books, jury.closes_at(dispute_id) - chain.timestamp())
    stake = chain.nodes.node(node.address).stake
    send(books, challenger, court.finalize(dispute_id))

    assert court.dispute(dispute_id).verdict is DisputeVerdict.CONVICTED
    cost, taken = stage.receipt.receipt.cost, stake // 2
    reward = (taken - cost) // 5
    assert chain.nodes.node(node.address).stake == stake - taken
    assert court.balance_of(market.payer.address) == cost
    assert court.balance_of(challenger.address) == terms.dispute_bond + reward
    assert [court.balance_of(juror) for juror in jurors] == [UNITS_PER_CREDIT // 2] * 5
