"""What a payer checks before acknowledging: signatures, counts against the text, prices against the offers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from declai.chain.client import Chain
from declai.chain.fields import Bytes32, Signature, Uint128
from declai.chain.messages import Assignment, InferenceReceipt, InferenceRequest, digest
from declai.client.evidence import Evidence
from declai.errors import ReceiptError
from declai.protocol.errors import InvalidPrompt, TemplateRefused
from declai.protocol.job_checks import Charge, JobPapers, verify_job
from declai.protocol.options import stop_strings
from declai.protocol.plan_checks import ChainFacts, StageOrder
from declai.protocol.prompts import prompt_source
from declai.protocol.receipt_checks import MAX_CLOCK_SKEW_S
from declai.protocol.receipts import Records, SignedReceipt
from declai.protocol.tokenizer import ModelTokenizer

# From a gateway's reading of a prompt until it begins the answer, at most: it quotes and admits the request between.
MAX_READING_S = 10


class StageBundle(BaseModel):
    """One stage as `GET /v1/receipts/{request}` tells it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    stage: int
    assignment: Assignment
    assignment_signature: Signature
    receipt: InferenceReceipt
    signature: Signature
    records: Records


class ReceiptBundle(BaseModel):
    """A request and its receipts, as a gateway tells it; amounts in base units."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    request: Bytes32
    state: str
    message: InferenceRequest
    cost: Uint128
    fee: Uint128
    num_output_tokens: int | None = None
    error: str | None = None
    stages: list[StageBundle] = []


def parse_bundle(data: Any) -> ReceiptBundle:
    """Raises ReceiptError."""
    try:
        return ReceiptBundle.model_validate(data)
    except ValidationError as error:
        raise ReceiptError(f"the gateway's receipts are not in their form: {error}") from None


def check_receipts(bundle: ReceiptBundle, chain: Chain, gateway: str, evidence: Evidence | None) -> int:
    """`check_bundle` with what the chain says now."""
    return check_bundle(bundle, facts_now(bundle, chain, gateway), evidence)


def check_bundle(bundle: ReceiptBundle, facts: ChainFacts, evidence: Evidence | None) -> int:
    """Check everything that can be checked from the chain and what was seen of the answer; returns the cost.

    Args:
        evidence: of a complete answer; None when it was cut off, then the counts cannot be held to it.

    Raises:
        ReceiptError: something does not hold; nothing may be acknowledged.
    """
    if digest(bundle.message, facts.domain) != bundle.request:
        raise ReceiptError("the receipts are for another request")
    if bundle.state == "failed":
        if bundle.cost or bundle.stages:
            raise ReceiptError("a failed request must cost nothing")
        return 0
    if bundle.state != "finished" or not bundle.stages or bundle.num_output_tokens is None:
        raise ReceiptError(f"the request is {bundle.state}: its receipts are not final")
    num_prompt_tokens = bundle.stages[0].receipt.prompt_tokens
    if evidence is not None and evidence.complete and evidence.prompt_token_ids is not None:
        seen = (len(evidence.prompt_token_ids), len(evidence.token_ids))
        if seen != (num_prompt_tokens, bundle.num_output_tokens):
            raise ReceiptError(f"{(num_prompt_tokens, bundle.num_output_tokens)} tokens are charged, {seen} were seen")
    if [stage.stage for stage in bundle.stages] != list(range(len(bundle.stages))):
        raise ReceiptError("the stages are not in order")
    papers = JobPapers(
        request=bundle.message,
        orders=[StageOrder(stage.assignment, stage.assignment_signature) for stage in bundle.stages],
        receipts=[SignedReceipt(receipt=s.receipt, signature=s.signature, records=s.records) for s in bundle.stages],
        num_prompt_tokens=num_prompt_tokens,
        num_output_tokens=bundle.num_output_tokens,
        charge=Charge(bundle.cost, bundle.fee),
    )
    problems = verify_job(papers, facts, now=int(time.time()))
    if problems:
        raise ReceiptError(str(problems[0]))
    return bundle.cost


def facts_now(bundle: ReceiptBundle, chain: Chain, gateway: str) -> ChainFacts:
    """What the chain says now of those who took part in a request."""
    nodes = {stage.assignment.node for stage in bundle.stages}
    _, version = chain.models.current(bundle.message.model)
    return ChainFacts(
        domain=chain.domain,
        gateway_signer=chain.nodes.node(gateway).signer,
        node_signers={node: chain.nodes.node(node).signer for node in nodes},
        num_layers={version.num_layers},
        max_fee_bps=chain.ledger.max_fee_bps(),
        offers={node: chain.nodes.offers(node, bundle.message.model) for node in nodes},
    )


def check_tokens(evidence: Evidence, body: dict[str, Any], tokenizer: ModelTokenizer) -> None:
    """Hold the token ids that are charged to the text that was asked and the text that came.

    Raises:
        ReceiptError: more prompt tokens than the prompt has, or tokens that are not the answer's text.
    """
    if evidence.prompt_token_ids is None or not evidence.complete:
        return
    try:
        prompt = prompt_source(body)
        possible = (tokenizer.encode_prompt(prompt, at) for at in _reading_times(evidence))
        if all(expected != evidence.prompt_token_ids for expected in possible):
            num_expected = len(tokenizer.encode_prompt(prompt))
            raise ReceiptError(
                f"{len(evidence.prompt_token_ids)} prompt tokens are charged, the prompt is {num_expected}"
            )
    except (InvalidPrompt, TemplateRefused) as error:
        raise ReceiptError(f"tokens are charged for a prompt that cannot be read: {error}") from None
    output = tokenizer.output_text(stop_strings(body.get("stop")), ignore_eos=bool(body.get("ignore_eos")))
    text = "".join(output.push(token_id) for token_id in evidence.token_ids) + output.flush()
    if text != evidence.text:
        raise ReceiptError("the tokens that are charged are not the text that came")


def _reading_times(evidence: Evidence) -> Iterator[datetime]:
    """When the gateway may have read the prompt: shortly before it began the answer, for templates that tell the time.

    Its own word for that counts when it can be true.
    """
    began = evidence.created
    if began is None or not evidence.asked_at - MAX_CLOCK_SKEW_S <= began <= time.time() + MAX_CLOCK_SKEW_S:
        began = int(evidence.asked_at)
    return (datetime.fromtimestamp(began - age_s, UTC) for age_s in range(MAX_READING_S + 1))
