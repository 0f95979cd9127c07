"""Verification against gateways that lie: in the file alone, or so well that the chain anchored the lie itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from declai.chain.messages import new_account, sign
from declai.devnet.processes import RedisAddress
from declai.ipfs.cid import Cid
from declai.protocol.batch_checks import verify_request
from declai.protocol.batches import (
    BatchFile,
    ClaimEntry,
    Header,
    PayoutEntry,
    ReceiptEntry,
    header_cid,
)
from declai.protocol.errors import NotSettled
from tests.support.books import Books, Market
from tests.support.settled import Case


@pytest.fixture(scope="module")
def case(market: Market, tmp_path_factory: pytest.TempPathFactory, redis_server: RedisAddress) -> Iterator[Case]:
    folder = tmp_path_factory.mktemp("verify")
    books = Books(market, folder, f"sqlite:///{folder / 'gateway.db'}", redis_server.url)
    session = market.open_session()
    books.serve(session)
    (earlier,) = books.settlement.run()
    acknowledged = books.serve(session, 9, 4)[0]
    newest = books.serve(session)[0]
    (row,) = books.settlement.run()
    state = books.index.sync()
    batches = {batch.root: batch for batch in state.batches.values()}
    link = Header.from_bytes(books.blocks.read_bytes(row.cid, 2**20)).link
    file = BatchFile.from_bytes(books.blocks.read_bytes(str(link), 2**20))
    yield Case(books, state, batches[row.root], file, batches[earlier.root], acknowledged, newest)
    books.close()


def test_the_honest_batch_verifies(case: Case) -> None:
    for request in (case.acknowledged, case.newest):
        verdict = case.verify(request, case.batch, case.file)
        assert verdict.problems == []
        assert case.verify(request, case.anchored(case.file), case.file).ok


def change_entry(file: BatchFile, stage: int, change: Callable[[ReceiptEntry], list[ReceiptEntry]]) -> BatchFile:
    """Replace the newest request's entry of a stage; payouts without entries go."""
    newest = max(entry.request.nonce for payout in file.payouts for entry in payout.receipts)
    payouts = []
    for payout in file.payouts:
        entries: list[ReceiptEntry] = []
        for entry in payout.receipts:
            changed = entry.request.nonce == newest and stage in (entry.assignment.stage, -1)
            entries += change(entry) if changed else [entry]
        if entries:
            payouts.append(payout.model_copy(update={"receipts": entries}))
    return file.model_copy(update={"payouts": payouts})


def edit(entry: ReceiptEntry, part: str, **changes: Any) -> list[ReceiptEntry]:
    return [entry.model_copy(update={part: getattr(entry, part).model_copy(update=changes)})]


def pay_more(case: Case) -> BatchFile:
    return change_entry(case.file, 1, lambda e: edit(e, "receipt", cost=e.receipt.cost + 1))


def count_more_tokens(case: Case) -> BatchFile:
    return change_entry(case.file, 1, lambda e: edit(e, "receipt", output_tokens=e.receipt.output_tokens + 1))


def drop_a_receipt(case: Case) -> BatchFile:
    return change_entry(case.file, 1, lambda e: [])


def drop_the_last_stage_and_say_there_were_two(case: Case) -> BatchFile:
    shorter = change_entry(case.file, 2, lambda e: [])
    return change_entry(shorter, -1, lambda e: [e.model_copy(update={"num_stages": 2})])


def drop_a_node(case: Case) -> BatchFile:
    return case.file.model_copy(update={"payouts": case.file.payouts[1:]})


def pay_a_receipt_twice(case: Case) -> BatchFile:
    return change_entry(case.file, 0, lambda e: [e, e])


def pay_a_friend(case: Case) -> BatchFile:
    first, *others = case.file.payouts
    friend = PayoutEntry(node=case.books.market.gateway.address, receipts=first.receipts)
    return case.file.model_copy(update={"payouts": [friend, *others]})


def forge_a_receipt(case: Case) -> BatchFile:
    domain, stranger = case.books.market.chain.domain, new_account()
    return change_entry(case.file, 1, lambda e: [e.model_copy(update={"signature": sign(e.receipt, domain, stranger)})])


def change_the_records(case: Case) -> BatchFile:
    return change_entry(
        case.file, 1, lambda e: [e.model_copy(update={"records": e.records[:-1] + bytes([e.records[-1] ^ 1])})]
    )


def order_with_another_key(case: Case) -> BatchFile:
    domain, stranger = case.books.market.chain.domain, new_account()
    return change_entry(
        case.file,
        1,
        lambda e: [e.model_copy(update={"assignment_signature": sign(e.assignment, domain, stranger)})],
    )


def sign_the_request_with_another_key(case: Case) -> BatchFile:
    domain, stranger = case.books.market.chain.domain, new_account()
    return change_entry(
        case.file, -1, lambda e: [e.model_copy(update={"request_signature": sign(e.request, domain, stranger)})]
    )


def change_claims(case: Case, change: Callable[[ClaimEntry], list[ClaimEntry]]) -> BatchFile:
    """Change the newest request's claim."""
    *others, newest = case.file.claims
    return case.file.model_copy(update={"claims": [*others, *change(newest)]})


def claim_less(case: Case) -> BatchFile:
    return change_claims(case, lambda c: [c.model_copy(update={"cost": c.cost - 1})])


def claim_above_the_cap(case: Case) -> BatchFile:
    return change_claims(case, lambda c: [c.model_copy(update={"cost": c.request.max_cost + 1})])


def leave_out_the_claim(case: Case) -> BatchFile:
    return change_claims(case, lambda c: [])


def claim_twice(case: Case) -> BatchFile:
    return change_claims(case, lambda c: [c, c])


def forge_a_claim(case: Case) -> BatchFile:
    domain, stranger = case.books.market.chain.domain, new_account()
    return change_claims(case, lambda c: [c.model_copy(update={"signature": sign(c.request, domain, stranger)})])


def acknowledge_in_the_payers_name(case: Case) -> BatchFile:
    """A claim that nobody signed says that all was acknowledged, at the same total."""

    def forged(claim: ClaimEntry) -> list[ClaimEntry]:
        total = claim.request.spent + claim.cost
        changes = {"nonce": claim.request.nonce + 1, "acked_below": claim.request.nonce + 1, "spent": total}
        return [claim.model_copy(update={"request": claim.request.model_copy(update=changes), "cost": 0})]

    return change_claims(case, forged)


def name_another_chain(case: Case) -> BatchFile:
    return case.file.model_copy(update={"chain_id": case.file.chain_id + 1})


def name_another_gateway(case: Case) -> BatchFile:
    return case.file.model_copy(update={"gateway": new_account().address})


LIES: list[Callable[[Case], BatchFile]] = [
    pay_more,
    count_more_tokens,
    drop_a_receipt,
    drop_the_last_stage_and_say_there_were_two,
    drop_a_node,
    pay_a_receipt_twice,
    pay_a_friend,
    forge_a_receipt,
    change_the_records,
    order_with_another_key,
    sign_the_request_with_another_key,
    claim_less,
    claim_above_the_cap,
    leave_out_the_claim,
    claim_twice,
    forge_a_claim,
    acknowledge_in_the_payers_name,
    name_another_chain,
    name_another_gateway,
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_each_lie_is_found_even_when_the_chain_anchored_it(case: Case, lie: Callable[[Case], BatchFile]) -> None:
    file = lie(case)
    assert case.verify(case.newest, case.batch, file).problems, "the file is not what the chain has"
    assert case.verify(case.newest, case.anchored(file), file).problems, "the chain has what the file says"


def test_a_gateway_cannot_keep_a_stage_from_its_pay(case: Case) -> None:
    """The last stage is gone, and so is what it costs: every sum on chain holds, and the payer paid less."""
    file = drop_the_last_stage_and_say_there_were_two(case)
    earned = sum(entry.receipt.cost for payout in file.payouts for entry in payout.receipts)
    (debit,), claim = case.batch.debits, file.claims[-1]
    less = claim.cost // 3
    cheaper = file.model_copy(
        update={"claims": [*file.claims[:-1], claim.model_copy(update={"cost": claim.cost - less})]}
    )
    batch = case.anchored(cheaper)
    fee = debit.amount - less - earned
    assert fee > 0
    batch = replace(batch, debits=(replace(debit, amount=debit.amount - less),))
    assert batch.fee == fee
    problems = case.verify(case.newest, batch, cheaper).problems
    assert len(problems) == 1
    assert "the stages end at layer 4" in problems[0]


def test_payouts_on_chain_other_than_the_receipts_are_found(case: Case) -> None:
    first, second, *others = case.batch.payouts
    moved = (replace(first, amount=first.amount + 1), replace(second, amount=second.amount - 1), *others)
    assert not case.verify(case.newest, replace(case.batch, payouts=moved), case.file).ok


def test_debits_on_chain_other_than_the_claims_are_found(case: Case) -> None:
    (debit,) = case.batch.debits
    dearer = replace(case.batch, debits=(replace(debit, amount=debit.amount + 5),))
    assert not case.verify(case.newest, dearer, case.file).ok


def test_a_header_with_other_subroots_is_found(case: Case) -> None:
    link = Cid.parse(case.books.blocks.add(case.file.to_bytes()))
    first, *others = case.subroots(case.file)
    forged = Header((bytes(32), *others), link)
    assert not case.verify(case.newest, case.batch, case.file, forged.to_bytes()).ok
    assert not case.verify(case.newest, case.batch, case.file, Header((first,), link).to_bytes()).ok


def test_the_file_of_another_batch_does_not_stand_in(case: Case) -> None:
    blocks = case.books.blocks
    other = Header.from_bytes(blocks.read_bytes(header_cid(case.other.header), 2**20))
    with pytest.raises(NotSettled):
        case.verify(case.newest, case.batch, blocks.read_bytes(str(other.link), 2**20))
    with pytest.raises(NotSettled, match="could not be read"):
        case.verify(case.newest, case.batch, b"{}")
    for header in (b"", b"x" * 35, bytes(36), other.to_bytes()[1:], other.to_bytes() + b"x"):
        with pytest.raises(NotSettled, match="could not be read"):
            case.verify(case.newest, case.batch, case.file, header or b"x")


def test_another_gateways_lies_about_a_request_settle_nothing(case: Case) -> None:
    """Any gateway can anchor a batch whose file names a stranger's request; the session's own gateway counts."""
    stranger = new_account().address
    file = case.file.model_copy(update={"gateway": stranger, "claims": []})
    header = Header(case.subroots(file), Cid.parse(case.books.blocks.add(file.to_bytes())))
    digest = Cid.parse(case.books.blocks.add(header.to_bytes())).digest
    state = case.state.copy()
    state.batches[stranger, case.batch.root] = replace(
        case.batch, gateway=stranger, header=digest, block=case.batch.block + 1, debits=()
    )
    verdict = verify_request(case.newest, case.books.facts(state), case.books.blocks, None)
    assert verdict.problems == []
    assert verdict.block == case.batch.block
