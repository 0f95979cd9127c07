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
from chain.fields import Address, Signature, Uint128
from chain.merkle import SumTree, batch_root, header_block, payout_word
from chain.messages import Assignment, Domain, InferenceReceipt, InferenceRequest, digest
from ipfs.cid import RAW, Cid
from worker.receipts import Records, SignedReceipt

MAX_BATCH_BYTES = 256 * 2**20
SUBROOT_BYTES, LINK_BYTES = 32, 36
MAX_NODES = 10_000


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
    receipts: list[ReceiptEntry]


class BatchFile(_Entry):
    """A batch in full, as it lies on IPFS. The chain commits to a header block that links to it."""

    format: Literal["declai-batch/2"] = "declai-batch/2"
    chain_id: int
    ledger: Address
    gateway: Address
    slot: Annotated[int, Field(ge=0, lt=2**53)]
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
class Header:
    """The block that a batch commits to: every node's subroot, then the link to the batch file."""

    subroots: tuple[bytes, ...]
    link: Cid

    def to_bytes(self) -> bytes:
        return header_block(self.subroots, bytes(self.link))

    @property
    def cid(self) -> Cid:
        return Cid.of(RAW, self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        """Parse. Raises ValueError (InvalidCid among them) when it is no header."""
        body, link = data[:-LINK_BYTES], data[-LINK_BYTES:]
        if len(body) % SUBROOT_BYTES or not body:
            raise ValueError(f"{len(data)} bytes are no batch header")
        subroots = tuple(body[i : i + SUBROOT_BYTES] for i in range(0, len(body), SUBROOT_BYTES))
        return cls(subroots, Cid.from_bytes(link))


@dataclass(frozen=True)
class Batch:
    """What goes to the ledger, and the file."""

    claims: list[Claim]
    payouts: list[Payout]
    file: BatchFile
    header: Header
    members: list[str]

    @property
    def root(self) -> bytes:
        return root_of(self.payouts, self.header.cid.digest)


def header_cid(digest: bytes) -> str:
    """CID of a batch's header block, from the digest that the chain has."""
    return str(Cid(RAW, digest))


def root_of(payouts: Sequence[Payout], header: bytes) -> bytes:
    """What the ledger anchors."""
    return batch_root([payout_word(payout.node, payout.amount) for payout in payouts], header)


def sum_tree(entries: Sequence[ReceiptEntry], domain: Domain) -> SumTree:
    """A node's receipts as the sum tree that its payout commits to."""
    return SumTree([(digest(entry.receipt, domain), entry.receipt.cost) for entry in entries])


def build(
    claims: Sequence[SessionClaim],
    stages_of: Callable[[str], Sequence[StoredStage]],
    *,
    domain: Domain,
    gateway: str,
    slot: int,
    link_to: Callable[[bytes], str],
) -> Batch:
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
    return Batch(
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
