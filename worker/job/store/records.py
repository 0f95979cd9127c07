"""What the store hands out: a receipt, and of its job what a claim shows; and how rows become them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy.engine import Row

from declai.chain.messages import Assignment, Domain, InferenceRequest, digest
from declai.protocol.jobs import StageJob
from declai.protocol.peers import Peer
from declai.protocol.receipts import SignedReceipt
from declai.storage.forms import FORMAT, AssignmentForm, ReceiptForm, RequestForm


@dataclass(frozen=True)
class StoredJob:
    """Of a job that was done, what its payment needs. Options, neighbours and the prompt are not kept."""

    job_id: bytes
    domain: Domain
    request: InferenceRequest
    request_signature: bytes
    assignment: Assignment
    assignment_signature: bytes
    num_stages: int
    attempt: int
    model_name: str
    manifest_cid: str
    gateway: Peer

    @cached_property
    def request_digest(self) -> bytes:
        return digest(self.request, self.domain)

    @cached_property
    def assignment_digest(self) -> bytes:
        return digest(self.assignment, self.domain)


@dataclass(frozen=True)
class StoredReceipt:
    """A receipt and the job (request, assignment, both signatures) that it is for; `stored_at` in Unix seconds.

    `acceptance` is the gateway's signature over the receipt's acceptance. `left_out`: a batch took the session's money
    for the request, and does not pay this receipt.
    """

    job: StoredJob
    receipt: SignedReceipt
    stored_at: int
    acceptance: bytes | None = None
    left_out: bool = False


def receipt_values(job: StageJob, receipt: SignedReceipt) -> dict[str, Any]:
    """Column values of a receipt and its job; `to_receipt` reads them back."""
    return {
        "job": job.job_id,
        "format": FORMAT,
        "chain_id": job.chain_id,
        "ledger": job.ledger,
        "request": RequestForm.of(job.request).text(),
        "request_signature": job.request_signature,
        "assignment": AssignmentForm.of(job.assignment).text(),
        "assignment_signature": job.assignment_signature,
        "receipt": ReceiptForm.of(receipt.receipt).text(),
        "receipt_signature": receipt.signature,
        "records": receipt.records,
        "num_stages": job.num_stages,
        "attempt": job.attempt,
        "model_name": job.model_name,
        "manifest_cid": job.manifest_cid,
        "gateway": job.gateway.address,
        "gateway_link_key": job.gateway.link_key,
        "gateway_endpoint": job.gateway.endpoint,
        "cost": str(receipt.receipt.cost),
    }


def to_receipt(row: Row[Any]) -> StoredReceipt:
    """Raises UnknownFormat."""
    job = StoredJob(
        job_id=row.job,
        domain=Domain(chain_id=row.chain_id, ledger=row.ledger),
        request=RequestForm.read(row.format, row.request).message(),
        request_signature=row.request_signature,
        assignment=AssignmentForm.read(row.format, row.assignment).message(),
        assignment_signature=row.assignment_signature,
        num_stages=row.num_stages,
        attempt=row.attempt,
        model_name=row.model_name,
        manifest_cid=row.manifest_cid,
        gateway=Peer(address=row.gateway, link_key=row.gateway_link_key, endpoint=row.gateway_endpoint),
    )
    receipt = ReceiptForm.read(row.format, row.receipt).message()
    signed = SignedReceipt(receipt=receipt, signature=row.receipt_signature, records=row.records)
    return StoredReceipt(job, signed, row.stored_at, row.acceptance, bool(row.left_out))
