"""What batches did with a node's receipts: read once, believed as far as the chain bears them out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from declai.chain.messages import digest, new_account, sign
from declai.chain.state import Debit, SettledBatch
from declai.contributor.batches import included_receipts, may_pay, note_batches, receipts_here
from declai.ipfs.errors import FetchFailed
from declai.protocol.batches import BatchFile, Header
from declai.worker.job.store import NodeStore, StoredReceipt
from tests.support.papers import Papers, Settled, entry, settle, state_of


@pytest.fixture
def papers() -> Papers:
    return Papers()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NodeStore]:
    opened = NodeStore(tmp_path / "node.db")
    yield opened
    opened.close()


class Reader:
    """Gives out what it was given, and counts."""

    def __init__(self, *settled: Settled) -> None:
        self._settled = {s.batch.root: s for s in settled}
        self.num_reads = 0

    def __call__(self, batch: SettledBatch) -> tuple[Header, BatchFile]:
        self.num_reads += 1
        if batch.root not in self._settled:
            raise FetchFailed("no peer has it")
        found = self._settled[batch.root]
        return found.header, found.file


def note(papers: Papers, store: NodeStore, reader: Reader, *settled: Settled) -> list[SettledBatch]:
    return note_batches(store, state_of(*settled), papers.domain, papers.node, reader)


def standing(store: NodeStore) -> list[tuple[int, bool]]:
    """(nonce, left out) of what is unpaid."""
    return [(kept.job.request.nonce, kept.left_out) for kept in store.unpaid()]


def test_a_batch_is_read_once_and_pays_left_out_and_others_stand(papers: Papers, store: NodeStore) -> None:
    requests = [papers.request(nonce) for nonce in (1, 2, 3, 4)]
    kept = [papers.keep(store, request) for request in requests]
    # 1 is paid, 2 listed and left out, 3 covered by a later acknowledgement; 4 is nobody's business yet.
    later = papers.request(9, acked_below=4, spent=5)
    settled = settle(papers, [requests[0], requests[1], later], [kept[0]])
    reader = Reader(settled)
    for _ in range(2):
        assert note(papers, store, reader, settled) == []
        assert sorted(standing(store)) == [
            (2, True),
            (3, True),
            (4, False),
        ]
    assert reader.num_reads == 1


def test_batches_that_concern_no_receipt_are_never_read(papers: Papers, store: NodeStore) -> None:
    kept = papers.keep(store, papers.request())
    settled = settle(papers, [kept.job.request], [kept])
    strangers = replace(settled, batch=replace(settled.batch, gateway=str(new_account().address)))
    elsewhere = replace(settled.batch, debits=(Debit(bytes(32), 1),), payouts=())
    reader = Reader(strangers)
    assert note(papers, store, reader, strangers, replace(settled, batch=elsewhere)) == []
    assert reader.num_reads == 0
    assert standing(store) == [(1, False)]


def test_a_receipt_that_was_paid_from_another_session_is_paid(papers: Papers, store: NodeStore) -> None:
    """Else its gateway could take the bond of the claim on it."""
    kept = papers.keep(store, papers.request())
    settled = settle(papers, [kept.job.request], [kept])
    settled = replace(settled, batch=replace(settled.batch, debits=(Debit(bytes(32), 1),)))
    assert note(papers, store, Reader(settled), settled) == []
    assert standing(store) == []


def test_receipts_of_other_operators_and_deployments_are_none_of_ours(papers: Papers, store: NodeStore) -> None:
    papers.keep(store, papers.request())
    assert len(receipts_here(store, papers.domain, papers.node)) == 1
    assert receipts_here(store, papers.domain, new_account().address) == []
    elsewhere = papers.domain.model_copy(update={"chain_id": 1})
    assert receipts_here(store, elsewhere, papers.node) == []


def test_an_unreadable_batch_is_asked_for_again_and_noted_once_it_is_there(papers: Papers, store: NodeStore) -> None:
    kept = papers.keep(store, papers.request())
    settled = settle(papers, [kept.job.request], [kept])
    silent = Reader()
    for _ in range(2):
        assert note(papers, store, silent, settled) == [settled.batch]
    assert silent.num_reads == 2
    assert standing(store) == [(1, False)]
    assert may_pay(settled.batch, kept)
    assert note(papers, store, Reader(settled), settled) == []
    assert standing(store) == []


def test_a_reorganisation_takes_a_batchs_word_back(papers: Papers, store: NodeStore) -> None:
    requests = [papers.request(nonce) for nonce in (1, 2)]
    kept = [papers.keep(store, request) for request in requests]
    settled = settle(papers, requests, [kept[0]])
    note(papers, store, Reader(settled), settled)
    assert standing(store) == [(2, True)]
    note(papers, store, Reader())
    assert sorted(standing(store)) == [(1, False), (2, False)]
    # It comes again, in a batch that pays both.
    again = settle(papers, requests, kept)
    note(papers, store, Reader(again), again)
    assert standing(store) == []


def lies(papers: Papers, kept: StoredReceipt, other: StoredReceipt) -> dict[str, Settled]:
    """Batches on chain that pay `kept`, each with something else given out for it."""
    honest = settle(papers, [kept.job.request], [kept])
    payouts = honest.file.payouts

    def saying(**changes: object) -> Settled:
        return replace(honest, file=honest.file.model_copy(update=changes))

    def listing(*entries: object) -> Settled:
        return saying(payouts=[payouts[0].model_copy(update={"receipts": list(entries)})])

    huge = kept.receipt.receipt.model_copy(update={"cost": 2**128 - 1})
    dear = entry(kept).model_copy(update={"receipt": huge})
    return {
        "other receipts": listing(entry(other)),
        "more receipts": listing(entry(kept), entry(other)),
        "no receipts": listing(),
        "no payouts": saying(payouts=[]),
        "costs beyond all bounds": listing(dear, dear),
    }


@pytest.mark.parametrize(
    "lie",
    [
        "other receipts",
        "more receipts",
        "no receipts",
        "no payouts",
        "costs beyond all bounds",
    ],
)
def test_a_lying_batch_file_counts_as_unreadable(papers: Papers, store: NodeStore, lie: str) -> None:
    kept, other = papers.keep(store, papers.request(1)), papers.keep(store, papers.request(2))
    settled = lies(papers, kept, other)[lie]
    assert note(papers, store, Reader(settled), settled) == [settled.batch]
    assert sorted(standing(store)) == [(1, False), (2, False)]
    assert store.batches() == set()


@pytest.mark.parametrize("flaw", ["a payout below its receipts' sum", "a header with a subroot too many"])
def test_a_payout_that_the_ledger_would_prove_nothing_by(papers: Papers, store: NodeStore, flaw: str) -> None:
    kept = papers.keep(store, papers.request())
    settled = settle(papers, [kept.job.request], [kept])
    if flaw == "a header with a subroot too many":
        settled = replace(settled, header=Header((bytes(32), *settled.header.subroots), settled.header.link))
    else:
        short = replace(settled.batch.payouts[0], amount=settled.batch.payouts[0].amount - 1)
        settled = replace(settled, batch=replace(settled.batch, payouts=(short,)))
    assert included_receipts(settled.batch, settled.header, settled.file, papers.domain, papers.node) == set()
    note(papers, store, Reader(settled), settled)
    assert standing(store) == [(1, True)]


def test_claims_that_the_sessions_key_did_not_sign_take_no_money(papers: Papers, store: NodeStore) -> None:
    kept = papers.keep(store, papers.request())
    forged = papers.request(9, acked_below=9)
    settled = settle(papers, [forged], [])
    claims = [
        claim.model_copy(update={"signature": signature})
        for claim in settled.file.claims
        for signature in (sign(forged, papers.domain, papers.signer), b"\0" * 65)
    ]
    settled = replace(settled, file=settled.file.model_copy(update={"claims": claims}))
    note(papers, store, Reader(settled), settled)
    assert standing(store) == [(kept.job.request.nonce, False)]


def test_a_batch_that_debits_another_session_charges_nothing_here(papers: Papers, store: NodeStore) -> None:
    papers.keep(store, papers.request(1))
    # Another session of the same key brings the batch before this node; the file's claims name ours.
    neighbour = replace(papers, session=bytes(31) + b"\1")
    beside = neighbour.keep(store, neighbour.request(1))
    settled = settle(papers, [papers.request(5, acked_below=5)], [beside])
    settled = replace(settled, batch=replace(settled.batch, debits=(Debit(neighbour.session, 1),)))
    note(papers, store, Reader(settled), settled)
    assert standing(store) == [(1, False)]


def test_only_a_batch_with_room_for_the_receipt_may_have_paid_it(papers: Papers, store: NodeStore) -> None:
    kept = papers.keep(store, papers.request())
    batch = settle(papers, [kept.job.request], [kept]).batch
    cost = kept.receipt.receipt.cost

    def paying(node: str, amount: int) -> SettledBatch:
        return replace(batch, payouts=(replace(batch.payouts[0], node=node, amount=amount),))

    assert may_pay(paying(papers.node, cost), kept)
    assert not may_pay(paying(papers.node, cost - 1), kept)
    assert not may_pay(paying(papers.gateway, cost), kept)
    assert not may_pay(replace(batch, payouts=()), kept)
    assert not may_pay(replace(batch, gateway=papers.node), kept)
    assert may_pay(replace(batch, debits=(Debit(bytes(32), 1),)), kept)


def joined(*settled: Settled) -> Settled:
    """One batch with the payouts of several."""
    file = settled[0].file.model_copy(update={"payouts": [payout for s in settled for payout in s.file.payouts]})
    header = Header(tuple(root for s in settled for root in s.header.subroots), settled[0].header.link)
    payouts = tuple(payout for s in settled for payout in s.batch.payouts)
    return Settled(replace(settled[0].batch, payouts=payouts), header, file)


def test_all_of_a_nodes_payouts_in_a_batch_count_and_nobody_elses(papers: Papers, store: NodeStore) -> None:
    kept = [papers.keep(store, papers.request(nonce)) for nonce in (1, 2)]
    neighbour = replace(papers, node=str(new_account().address))
    beside = neighbour.keep(store, papers.request(3))
    # The ledger does not mind a node that stands in a batch twice.
    batch = joined(settle(neighbour, [], [beside]), *(settle(papers, [one.job.request], [one]) for one in kept))
    found = included_receipts(batch.batch, batch.header, batch.file, papers.domain, papers.node)
    assert found == {digest(one.receipt.receipt, papers.domain) for one in kept}
