"""A settlement batch: from finished requests to the ledger's call and the file that lets anyone check it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from declai.chain.contracts.ledger import Payout
from declai.chain.fields import Address, Signature, Uint128
from declai.chain.merkle import SumTree, batch_root, header_block, payout_word
from declai.chain.messages import Assignment, Domain, InferenceReceipt, InferenceRequest, digest
from declai.ipfs.cid import RAW, Cid
from declai.protocol.receipts import Records

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


def header_cid(digest: bytes) -> str:
    """CID of a batch's header block, from the digest that the chain has."""
    return str(Cid(RAW, digest))


def root_of(payouts: Sequence[Payout], header: bytes) -> bytes:
    """What the ledger anchors."""
    return batch_root([payout_word(payout.node, payout.amount) for payout in payouts], header)


def sum_tree(entries: Sequence[ReceiptEntry], domain: Domain) -> SumTree:
    """A node's receipts as the sum tree that its payout commits to."""
    return SumTree([(digest(entry.receipt, domain), entry.receipt.cost) for entry in entries])
