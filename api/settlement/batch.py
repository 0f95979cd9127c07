"""A settlement batch: from finished requests to the ledger's call and the file that lets anyone check it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.settlement.plan import SessionClaim
from api.store.records import StoredRequest, StoredStage
from chain.contracts.ledger import Claim, Payout
from chain.fields import Address, Bytes32, Signature, Uint128
from chain.merkle import PayoutTree, SumTree, payout_leaf
from chain.messages import Assignment, Domain, InferenceReceipt, InferenceRequest, digest
from worker.receipts import Records, SignedReceipt

MAX_BATCH_BYTES = 256 * 2**20


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClaimEntry(_Entry):
    """A signed request and what it cost, as the ledger got it."""

    request: InferenceRequest
    signature: Signature
    cost: Uint128


class ReceiptEntry(_Entry):
    """One receipt with all that says it was earned: leaf number `index` of its node's sum tree is its place."""

    request: InferenceRequest
    request_signature: Signature
    num_stages: Annotated[int, Field(ge=1, le=255)]
    assignment: Assignment
    assignment_signature: Signature
    receipt: InferenceReceipt
    signature: Signature
    records: Records


class PayoutEntry(_Entry):
    """What a node earned; `receipts` in the order of its sum tree's leaves."""

    node: Address
    faults: Annotated[int, Field(ge=0, lt=2**32)]
    receipts: list[ReceiptEntry]


class BatchFile(_Entry):
    """A batch in full, as it lies on IPFS."""

    format: Literal["declai-batch/1"] = "declai-batch/1"
    chain_id: int
    ledger: Address
    gateway: Address
    root: Bytes32
    claims: list[ClaimEntry]
    payouts: list[PayoutEntry]

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> BatchFile:
        """Parse. Raises ValueError when it is no batch file."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ValueError(f"not a batch file: {error}") from None


@dataclass(frozen=True)
class Batch:
    """What goes to the ledger, and the file."""

    claims: list[Claim]
    payouts: list[Payout]
    root: bytes
    file: BatchFile
    members: list[str]


def sum_tree(entries: Sequence[ReceiptEntry], domain: Domain) -> SumTree:
    """A node's receipts as the sum tree that its payout commits to."""
    return SumTree([(digest(entry.receipt, domain), entry.receipt.cost) for entry in entries])


def payout_root(payouts: Sequence[PayoutEntry], domain: Domain) -> bytes:
    """The root that is anchored on chain; payouts in rising order of their nodes."""
    return PayoutTree([payout_leaf(p.node, sum_tree(p.receipts, domain).root, p.faults) for p in payouts]).root


def build(
    claims: Sequence[SessionClaim],
    stages_of: Callable[[str], Sequence[StoredStage]],
    *,
    domain: Domain,
    gateway: str,
) -> Batch:
    """Net sessions' claims into one batch. `stages_of`: the stored stages of a request (0x-hex)."""
    members = [request for claim in claims for request in claim.members]
    by_node: dict[str, list[ReceiptEntry]] = defaultdict(list)
    for request in members:
        stages = stages_of(request.request)
        for stage in stages:
            by_node[stage.assignment.node].append(_entry(request, stage, len(stages)))
    entries = [PayoutEntry(node=node, faults=0, receipts=by_node[node]) for node in sorted(by_node, key=_address_order)]
    payouts = []
    for entry in entries:
        tree = sum_tree(entry.receipts, domain)
        payouts.append(Payout(entry.node, tree.total, tree.num_leaves, entry.faults, tree.top))
    root = payout_root(entries, domain)
    listed = [request for claim in claims for request in claim.listed]
    file = BatchFile(
        chain_id=domain.chain_id,
        ledger=domain.ledger,
        gateway=gateway,
        root=root,
        claims=[ClaimEntry(request=r.message, signature=r.signature, cost=r.cost) for r in listed],
        payouts=entries,
    )
    return Batch(
        claims=[Claim(r.message, r.signature, r.cost) for r in listed],
        payouts=payouts,
        root=root,
        file=file,
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
