"""A job as one stage sees it, and the signed envelope in which a gateway hands it over. Torch-free."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Annotated, Literal

from eth_account.signers.local import LocalAccount
from pydantic import Field, model_validator

from declai.chain.fields import Address, Signature
from declai.chain.messages import Assignment, Domain, InferenceRequest, digest
from declai.chain.pricing import Tier
from declai.protocol.message import ProtocolMessage
from declai.protocol.options import GenerationOptions, TokenId
from declai.protocol.peers import Peer
from declai.protocol.ring import MAX_STAGES, RingView
from declai.protocol.wire import MAX_TOKENS, PromptFormat, TokenCount

MAX_ENVELOPE_BYTES = 2**20


class StageJob(ProtocolMessage):
    """Everything one stage needs to know of a job. What follows `prompt_format_out` is for the last stage alone.

    `attempt` names the job, for all its stages alike; the assignment's is later where this node took another's place.
    `prompt_format_in` and `_out`: how the prompt's hidden states come from upstream and go downstream.
    `prompt_token_ids` is given when the draw needs the prompt (a repetition penalty): nobody else tells it.
    """

    version: Literal[2] = 2
    chain_id: Annotated[int, Field(ge=1, lt=2**53)]
    ledger: Address
    request: InferenceRequest
    request_signature: Signature
    assignment: Assignment
    assignment_signature: Signature
    model_name: Annotated[str, Field(min_length=1, max_length=200)]
    manifest_cid: Annotated[str, Field(min_length=1, max_length=128)]
    num_stages: Annotated[int, Field(ge=1, le=MAX_STAGES)]
    attempt: Annotated[int, Field(ge=0, lt=2**32)]
    gateway: Peer
    ring: RingView = RingView()
    num_prompt_tokens: TokenCount
    max_tokens: TokenCount
    prompt_format_in: PromptFormat = "profile"
    prompt_format_out: PromptFormat = "profile"
    options: GenerationOptions | None = None
    eos_token_ids: Annotated[tuple[TokenId, ...], Field(max_length=64)] = ()
    prompt_token_ids: Annotated[tuple[TokenId, ...], Field(max_length=MAX_TOKENS)] = ()

    @model_validator(mode="after")
    def _check_shape(self) -> StageJob:
        if self.assignment.stage >= self.num_stages:
            raise ValueError(f"stage {self.assignment.stage} of {self.num_stages}")
        if any((self.num_stages == 1) != (side == ()) for side in (self.ring.upstream, self.ring.downstream)):
            raise ValueError("a stage has both neighbours in the ring, or is the only stage")
        if self.gateway.relay is not None or not all(map(self.may_be_reached, self.ring.neighbours)):
            raise ValueError("the job's gateway relays, and nobody else")
        if self.ring.from_position and self.assignment.attempt == self.attempt:
            raise ValueError("who is in a job from the beginning sends all from the beginning")
        if self.is_last != (self.options is not None):
            raise ValueError("the last stage, and no other, gets the options")
        if not self.is_last and (self.eos_token_ids or self.prompt_token_ids):
            raise ValueError("only the last stage draws tokens and decides when to stop")
        if (self.is_first and self.prompt_format_in != "profile") or (
            self.is_last and self.prompt_format_out != "profile"
        ):
            raise ValueError("a format for hidden states where token ids travel")
        if self.prompt_token_ids and len(self.prompt_token_ids) != self.num_prompt_tokens:
            raise ValueError(f"{len(self.prompt_token_ids)} prompt token ids, not {self.num_prompt_tokens}")
        if self.request.tier not in list(Tier):
            raise ValueError(f"tier {self.request.tier} is none of {[int(tier) for tier in Tier]}")
        return self

    @property
    def stage(self) -> int:
        return self.assignment.stage

    @property
    def is_first(self) -> bool:
        return self.assignment.stage == 0

    @property
    def is_last(self) -> bool:
        return self.assignment.stage == self.num_stages - 1

    @property
    def is_replacement(self) -> bool:
        """Whether this node took another's place in a job under way."""
        return self.assignment.attempt > self.attempt

    def may_be_reached(self, peer: Peer) -> bool:
        """Whether a neighbour is spoken with directly, or by way of this job's gateway."""
        return peer.relay is None or peer.hop == self.gateway.hop

    @property
    def num_layers(self) -> int:
        return self.assignment.end_layer - self.assignment.first_layer

    @property
    def max_positions(self) -> int:
        """Positions that are ever fed: the last output token is not."""
        return self.num_prompt_tokens + self.max_tokens - 1

    @cached_property
    def domain(self) -> Domain:
        return Domain(chain_id=self.chain_id, ledger=self.ledger)

    @cached_property
    def request_digest(self) -> bytes:
        return digest(self.request, self.domain)

    @cached_property
    def assignment_digest(self) -> bytes:
        return digest(self.assignment, self.domain)

    @cached_property
    def job_id(self) -> bytes:
        return job_id(self.request_digest, self.attempt)


class Envelope(ProtocolMessage):
    """A job's JSON text and the EIP-191 signature of the gateway's signer over that text."""

    job: Annotated[str, Field(max_length=MAX_ENVELOPE_BYTES)]
    signature: Signature


def job_id(request_digest: bytes, attempt: int) -> bytes:
    """The 32 bytes that name one attempt at a request on links."""
    return hashlib.sha256(request_digest + attempt.to_bytes(4, "big")).digest()


def seal(job: StageJob, account: LocalAccount) -> Envelope:
    """Sign a job with the gateway's signer key."""
    text, signature = job.signed_text(account)
    return Envelope(job=text, signature=signature)
