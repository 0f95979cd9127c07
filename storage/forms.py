"""The forms in which signed messages lie in databases, apart from the forms in which they travel.

A row says in its column `format` in which form its records are. What was signed cannot be migrated, for another form of
the message has another digest: when a signed message changes, its new form gets the next number, old rows keep theirs,
and both are read. Amounts are decimal strings, bytes 0x-hex.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from declai.chain.fields import to_hex
from declai.chain.messages import Assignment, InferenceReceipt, InferenceRequest
from declai.storage.errors import UnknownFormat

# What is written; format 1 is all that there ever was.
FORMAT = 1


class StoredForm(BaseModel):
    """Base of the stored forms. Nothing is ever added to a form that was released."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, row_format: int, text: str) -> Self:
        """Parse what a row holds. Raises UnknownFormat."""
        if row_format != FORMAT:
            raise UnknownFormat(
                f"a row holds a record of format {row_format}, this program reads format {FORMAT}: use a later release"
            )
        return cls.model_validate_json(text)

    def text(self) -> str:
        return self.model_dump_json()


class RequestForm(StoredForm):
    """An InferenceRequest."""

    session: str
    nonce: int
    model: str
    body: str
    max_tokens: int
    tier: int
    max_cost: str
    acked_below: int
    spent: str
    deadline: int

    @classmethod
    def of(cls, message: InferenceRequest) -> RequestForm:
        return cls(
            session=to_hex(message.session),
            nonce=message.nonce,
            model=to_hex(message.model),
            body=to_hex(message.body),
            max_tokens=message.max_tokens,
            tier=message.tier,
            max_cost=str(message.max_cost),
            acked_below=message.acked_below,
            spent=str(message.spent),
            deadline=message.deadline,
        )

    def message(self) -> InferenceRequest:
        return InferenceRequest(
            session=unhex(self.session),
            nonce=self.nonce,
            model=unhex(self.model),
            body=unhex(self.body),
            max_tokens=self.max_tokens,
            tier=self.tier,
            max_cost=int(self.max_cost),
            acked_below=self.acked_below,
            spent=int(self.spent),
            deadline=self.deadline,
        )


class AssignmentForm(StoredForm):
    """An Assignment."""

    request: str
    stage: int
    first_layer: int
    end_layer: int
    numeric_profile: int
    shard: str
    node: str
    prompt_price: str
    output_price: str
    attempt: int
    deadline: int

    @classmethod
    def of(cls, message: Assignment) -> AssignmentForm:
        return cls(
            request=to_hex(message.request),
            stage=message.stage,
            first_layer=message.first_layer,
            end_layer=message.end_layer,
            numeric_profile=message.numeric_profile,
            shard=to_hex(message.shard),
            node=message.node,
            prompt_price=str(message.prompt_price),
            output_price=str(message.output_price),
            attempt=message.attempt,
            deadline=message.deadline,
        )

    def message(self) -> Assignment:
        return Assignment(
            request=unhex(self.request),
            stage=self.stage,
            first_layer=self.first_layer,
            end_layer=self.end_layer,
            numeric_profile=self.numeric_profile,
            shard=unhex(self.shard),
            node=self.node,
            prompt_price=int(self.prompt_price),
            output_price=int(self.output_price),
            attempt=self.attempt,
            deadline=self.deadline,
        )


class ReceiptForm(StoredForm):
    """An InferenceReceipt."""

    assignment: str
    node: str
    prompt_tokens: int
    output_tokens: int
    inputs: str
    outputs: str
    cost: str
    started_at: int
    finished_at: int

    @classmethod
    def of(cls, message: InferenceReceipt) -> ReceiptForm:
        return cls(
            assignment=to_hex(message.assignment),
            node=message.node,
            prompt_tokens=message.prompt_tokens,
            output_tokens=message.output_tokens,
            inputs=to_hex(message.inputs),
            outputs=to_hex(message.outputs),
            cost=str(message.cost),
            started_at=message.started_at,
            finished_at=message.finished_at,
        )

    def message(self) -> InferenceReceipt:
        return InferenceReceipt(
            assignment=unhex(self.assignment),
            node=self.node,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            inputs=unhex(self.inputs),
            outputs=unhex(self.outputs),
            cost=int(self.cost),
            started_at=self.started_at,
            finished_at=self.finished_at,
        )


def unhex(text: str) -> bytes:
    """Bytes of 0x-hex."""
    return bytes.fromhex(text.removeprefix("0x"))
