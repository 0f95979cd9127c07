"""Answers nodes' direct claims on this gateway's sessions, so that no payer pays a receipt twice.

A claim falls when the gateway shows what speaks against it:
- the receipt's path to the batch that paid it;
- another receipt, which the node signed for the same assignment;
- a later request in which the payer acknowledged this one, with one of its assignments. Such a claim falls, or is held
  to what payer and gateway agreed on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from declai.api.store.records import BatchState, StoredRequest
from declai.api.store.store import Store
from declai.chain.client import Chain
from declai.chain.contracts.binding import Call
from declai.chain.contracts.ledger import Inclusion, OpenedClaim, SignedWork
from declai.chain.errors import ContractRevert
from declai.chain.merkle import payout_word
from declai.chain.messages import digest
from declai.chain.sender import TransactionSender
from declai.ipfs.store import BlockStore
from declai.protocol.batches import MAX_BATCH_BYTES, BatchFile, Header, sum_tree

logger = logging.getLogger(__name__)


class ClaimAnswers:
    """One gateway's answers. Blocking."""

    def __init__(self, store: Store, blocks: BlockStore, chain: Chain, sender: TransactionSender, gateway: str) -> None:
        self._store = store
        self._blocks = blocks
        self._chain = chain
        self._sender = sender
        self._gateway = gateway

    def run(self) -> int:
        """Answer what can be answered now; returns how many claims. Those on unsettled work are left to be paid."""
        answered = 0
        for claim in self._chain.ledger.open_claims():
            terms = self._chain.ledger.terms(claim.session)
            if terms is None or terms.gateway != self._gateway:
                continue
            for call in self._answers(claim):
                try:
                    self._sender.send(call)
                except ContractRevert as refusal:
                    # Answered by somebody else, or held to this total already.
                    logger.info("claim 0x%s: %s", claim.assignment.hex(), refusal)
                    continue
                answered += 1
                break
        return answered

    def _answers(self, claim: OpenedClaim) -> Iterator[Call]:
        rows = self._store.numbered("0x" + claim.session.hex(), claim.nonce)
        if rows and rows[0].message.nonce == claim.nonce:
            if (inclusion := self._inclusion(rows[0], claim)) is not None:
                yield self._chain.ledger.void_by_inclusion(claim.session, claim.assignment, inclusion)
            yield from self._other_receipt(rows[0], claim)
        later = next((work for row in rows if (work := self._accepted(row, claim.nonce)) is not None), None)
        if later is not None:
            yield self._chain.ledger.void_by_acknowledgement(claim.assignment, later)

    def _inclusion(self, row: StoredRequest, claim: OpenedClaim) -> Inclusion | None:
        batch = None if row.batch is None else self._store.batch(row.batch)
        if batch is None or batch.state is not BatchState.CONFIRMED:
            return None
        header = Header.from_bytes(self._blocks.read_bytes(batch.cid, MAX_BATCH_BYTES))
        file = BatchFile.from_bytes(self._blocks.read_bytes(str(header.link), MAX_BATCH_BYTES))
        domain = self._chain.domain
        trees = [sum_tree(payout.receipts, domain) for payout in file.payouts]
        for index, payout in enumerate(file.payouts):
            for place, entry in enumerate(payout.receipts):
                if digest(entry.receipt, domain) == claim.receipt:
                    return Inclusion(
                        gateway=self._gateway,
                        slot=file.slot,
                        payouts=tuple(payout_word(p.node, t.total) for p, t in zip(file.payouts, trees, strict=True)),
                        subroots=header.subroots,
                        link=bytes(header.link),
                        payout_index=index,
                        top=trees[index].top,
                        num_receipts=trees[index].num_leaves,
                        receipt=claim.receipt,
                        cost=entry.receipt.cost,
                        receipt_index=place,
                        receipt_proof=tuple(trees[index].proof(place)),
                    )
        return None

    def _other_receipt(self, row: StoredRequest, claim: OpenedClaim) -> Iterator[Call]:
        """The receipt that the node gave us for the assignment, when it claims by another one."""
        domain = self._chain.domain
        for stage in self._store.request_stages(row.request):
            signed = stage.receipt
            if digest(stage.assignment, domain) == claim.assignment and digest(signed.receipt, domain) != claim.receipt:
                yield self._chain.ledger.void_by_receipt(
                    claim.session, stage.assignment, signed.receipt, signed.signature
                )

    def _accepted(self, row: StoredRequest, nonce: int) -> SignedWork | None:
        """The request with an assignment of ours, when it acknowledges the nonce."""
        stages = self._store.request_stages(row.request) if row.message.acked_below > nonce else []
        if not stages:
            return None
        return SignedWork(row.message, row.signature, stages[0].assignment, stages[0].assignment_signature)
