"""A settlement batch: from finished requests to the ledger's call and the file that lets anyone check it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from declai.api.settlement.plan import SessionClaim
from declai.api.store.records import StoredRequest, StoredStage
from declai.chain.contracts.ledger import Claim, Payout
from declai.chain.messages import Domain
from declai.ipfs.cid import Cid
from declai.protocol.batches import BatchFile, ClaimEntry, Header, PayoutEntry, ReceiptEntry, root_of, sum_tree
from declai.protocol.receipts import SignedReceipt


@dataclass(frozen=True)
class NettedBatch:
    """What goes to the ledger, and the file."""

    claims: list[Claim]
    payouts: list[Payout]
    file: BatchFile
    header: Header
    members: list[str]

    @property
    def root(self) -> bytes:
        return root_of(self.payouts, self.header.cid.digest)


def build(
    claims: Sequence[SessionClaim],
    stages_of: Callable[[str], Sequence[StoredStage]],
    *,
    domain: Domain,
    gateway: str,
    slot: int,
    link_to: Callable[[bytes], str],
) -> NettedBatch:
    """Net sessions' claims into one batch.

    Args:
        stages_of: the stored stages of a request (0x-hex).
        slot: where the batch will be anchored.
        link_to: keeps the batch file's bytes and returns their CID.
    """
    members = [request for claim in claims for request in claim.members]
    by_node: dict[str, list[ReceiptEntry]] = defaultdict(list)
    for request in members:
        stages = stages_of(request.request)
        for stage in stages:
            by_node[stage.assignment.node].append(_entry(request, stage, len(stages)))
    entries = [PayoutEntry(node=node, receipts=by_node[node]) for node in sorted(by_node, key=_address_order)]
    trees = [sum_tree(entry.receipts, domain) for entry in entries]
    listed = [request for claim in claims for request in claim.listed]
    file = BatchFile(
        chain_id=domain.chain_id,
        ledger=domain.ledger,
        gateway=gateway,
        slot=slot,
        claims=[ClaimEntry(request=r.message, signature=r.signature, cost=r.cost) for r in listed],
        payouts=entries,
    )
    return NettedBatch(
        claims=[Claim(r.message, r.signature, r.cost) for r in listed],
        payouts=[Payout(entry.node, tree.total) for entry, tree in zip(entries, trees, strict=True)],
        file=file,
        header=Header(tuple(tree.root for tree in trees), Cid.parse(link_to(file.to_bytes()))),
        members=[request.request for request in members],
    )


def _address_order(address: str) -> int:
    return int(address, 16)


def _entry(request: StoredRequest, stage: StoredStage, num_stages: int) -> ReceiptEntry:
    signed: SignedReceipt = stage.receipt
    return ReceiptEntry(
        request=request.message,
        request_signature=request.signature,
        num_stages=num_stages,
        assignment=stage.assignment,
        assignment_signature=stage.assignment_signature,
        receipt=signed.receipt,
        signature=signed.signature,
        records=signed.records,
    )
