"""A stage's signed receipt: built by the node that did the work, checked alone and with its neighbours'. Torch-free."""

from __future__ import annotations

from typing import Annotated

from eth_account.signers.local import LocalAccount
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from declai.chain.fields import Signature, to_hex
from declai.chain.messages import (
    Acceptance,
    Assignment,
    Domain,
    InferenceReceipt,
    InferenceRequest,
    digest,
    sign,
)
from declai.chain.pricing import Tier, stage_cost
from declai.protocol import commitments, wire
from declai.protocol.commitments import Commitment
from declai.protocol.errors import InvalidReceipt
from declai.protocol.jobs import StageJob


def _from_hex(value: object) -> object:
    return bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else value


MAX_RECORDS_BYTES = wire.MAX_TOKENS // commitments.CHUNK_TOKENS * wire.RECORD_BYTES
Records = Annotated[
    bytes, Field(max_length=MAX_RECORDS_BYTES), BeforeValidator(_from_hex), PlainSerializer(to_hex, when_used="json")
]


class SignedReceipt(BaseModel):
    """A receipt, its signer's EIP-712 signature, and the chunk records (254 bytes each) that its heads commit to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    receipt: InferenceReceipt
    signature: Signature
    records: Records

    def to_frame(self, job: bytes) -> wire.Receipt:
        """The link frame of this receipt for a job id."""
        return wire.Receipt(job, self.receipt.model_dump_json(), self.signature, self.records)

    @classmethod
    def from_frame(cls, frame: wire.Receipt) -> SignedReceipt:
        """Parse what a link brought; raises InvalidReceipt. The signature is not checked here."""
        try:
            receipt = InferenceReceipt.model_validate_json(frame.receipt)
            return cls(receipt=receipt, signature=frame.signature, records=bytes(frame.payload))
        except ValidationError as error:
            raise InvalidReceipt("the frame holds no receipt") from error


def cost_of(assignment: Assignment, request: InferenceRequest, num_prompt_tokens: int, num_output_tokens: int) -> int:
    """What a stage earns for these counts, in base units."""
    return stage_cost(
        num_prompt_tokens=num_prompt_tokens,
        num_output_tokens=num_output_tokens,
        prompt_price=assignment.prompt_price,
        output_price=assignment.output_price,
        num_layers=assignment.end_layer - assignment.first_layer,
        tier=Tier(request.tier),
    )


def build_receipt(
    job: StageJob,
    commitment: Commitment,
    num_output_tokens: int,
    started_at: int,
    finished_at: int,
    account: LocalAccount,
) -> SignedReceipt:
    """Sign what this stage did; times are unix seconds, `account` is the node's signer key."""
    receipt = InferenceReceipt(
        assignment=job.assignment_digest,
        node=job.assignment.node,
        prompt_tokens=job.num_prompt_tokens,
        output_tokens=num_output_tokens,
        inputs=commitment.inputs,
        outputs=commitment.outputs,
        cost=cost_of(job.assignment, job.request, job.num_prompt_tokens, num_output_tokens),
        started_at=started_at,
        finished_at=finished_at,
    )
    return SignedReceipt(receipt=receipt, signature=sign(receipt, job.domain, account), records=commitment.records)


def acceptance_of(receipt: InferenceReceipt, domain: Domain) -> Acceptance:
    """What a gateway signs for a receipt that it stored."""
    return Acceptance(receipt=digest(receipt, domain))
