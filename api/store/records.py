"""What the store hands out: requests, stages, batches and totals, as frozen records; and how rows become them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy.engine import Row

from declai.chain.fields import to_hex
from declai.chain.messages import Assignment, InferenceRequest
from declai.protocol.receipts import SignedReceipt
from declai.storage.forms import FORMAT, AssignmentForm, ReceiptForm, RequestForm, unhex


class RequestState(StrEnum):
    """A request runs, then is finished (it may cost something) or failed (it costs nothing)."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class BatchState(StrEnum):
    """A batch is planned, sent (its raw transaction is stored), and confirmed."""

    PLANNED = "planned"
    SENT = "sent"
    CONFIRMED = "confirmed"


@dataclass(frozen=True)
class StoredStage:
    """One stage of a finished request: who was to do what, and the signed receipt. `cost` in base units."""

    stage: int
    assignment: Assignment
    assignment_signature: bytes
    receipt: SignedReceipt

    @property
    def cost(self) -> int:
        return self.receipt.receipt.cost


@dataclass(frozen=True)
class StoredRequest:
    """A request as the store has it; hashes are 0x-hex, amounts base units, times Unix seconds."""

    request: str
    message: InferenceRequest
    signature: bytes
    state: RequestState
    cost: int
    fee: int
    finish_reason: str | None
    num_prompt_tokens: int | None
    num_output_tokens: int | None
    error: str | None
    batch: int | None
    created_at: float


@dataclass(frozen=True)
class Claimable:
    """A finished request with a cost, as planning a batch sees it. `record_bytes`: its receipts' chunk records."""

    request: StoredRequest
    num_receipts: int
    record_bytes: int

    @property
    def nonce(self) -> int:
        return self.request.message.nonce

    @property
    def settled(self) -> bool:
        """Whether a batch holds it already."""
        return self.request.batch is not None


@dataclass(frozen=True)
class StoredBatch:
    """A settlement batch and the raw transactions that were signed for it, oldest first."""

    id: int
    state: BatchState
    root: bytes
    cid: str
    call_data: bytes
    transactions: list[bytes]
    confirmed_block: int | None


@dataclass(frozen=True)
class SessionTotals:
    """`finished_total`: base units that all ended requests cost; `next_nonce`: above all known ones.

    `running`: request -> its cap in base units.
    """

    finished_total: int
    next_nonce: int
    running: dict[str, int]


def request_values(message: InferenceRequest, signature: bytes) -> dict[str, Any]:
    """Column values of a request's message; `to_request` reads them back."""
    return {
        "session": to_hex(message.session),
        "nonce": message.nonce,
        "message": RequestForm.of(message).text(),
        "signature": to_hex(signature),
        "max_cost": str(message.max_cost),
        "format": FORMAT,
    }


def stage_values(stage: StoredStage) -> dict[str, Any]:
    """Column values of a stage; `to_stage` reads them back."""
    return {
        "stage": stage.stage,
        "node": stage.assignment.node,
        "assignment": AssignmentForm.of(stage.assignment).text(),
        "assignment_signature": to_hex(stage.assignment_signature),
        "receipt": ReceiptForm.of(stage.receipt.receipt).text(),
        "receipt_signature": to_hex(stage.receipt.signature),
        "records": stage.receipt.records,
        "cost": str(stage.cost),
        "format": FORMAT,
    }


def to_stage(row: Row[Any]) -> StoredStage:
    receipt = ReceiptForm.read(row.format, row.receipt).message()
    signed = SignedReceipt(receipt=receipt, signature=unhex(row.receipt_signature), records=bytes(row.records))
    assignment = AssignmentForm.read(row.format, row.assignment).message()
    return StoredStage(row.stage, assignment, unhex(row.assignment_signature), signed)


def to_request(row: Row[Any]) -> StoredRequest:
    return StoredRequest(
        request=row.request,
        message=RequestForm.read(row.format, row.message).message(),
        signature=unhex(row.signature),
        state=RequestState(row.state),
        cost=int(row.cost or 0),
        fee=int(row.fee or 0),
        finish_reason=row.finish_reason,
        num_prompt_tokens=row.num_prompt_tokens,
        num_output_tokens=row.num_output_tokens,
        error=row.error,
        batch=row.batch,
        created_at=row.created_at,
    )


def to_batch(row: Row[Any]) -> StoredBatch:
    return StoredBatch(
        id=row.id,
        state=BatchState(row.state),
        root=unhex(row.root),
        cid=row.cid,
        call_data=bytes.fromhex(row.call_data),
        transactions=[bytes.fromhex(raw) for raw in json.loads(row.transactions)],
        confirmed_block=row.confirmed_block,
    )
