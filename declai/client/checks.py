"""What a payer checks before acknowledging: signatures, counts against the text, prices against the offers."""

from __future__ import annotations

import time
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from declai.chain.client import Chain
from declai.chain.errors import BadSignature
from declai.chain.fields import Bytes32, Signature, Uint128
from declai.chain.messages import Assignment, InferenceReceipt, InferenceRequest, digest, recover
from declai.chain.pricing import BPS
from declai.client.evidence import Evidence
from declai.errors import ReceiptError
from declai.protocol.receipt_checks import SignedPlan, verify_job_receipts
from declai.protocol.receipts import Records, SignedReceipt
from declai.protocol.tokenizer import ModelTokenizer


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
    """Check everything that can be checked from the chain and what was seen of the answer; returns the cost.

    Args:
        evidence: of a complete answer; None when it was cut off, then the counts cannot be held to it.

    Raises:
        ReceiptError: something does not hold; nothing may be acknowledged.
    """
    if digest(bundle.message, chain.domain) != bundle.request:
        raise ReceiptError("the receipts are for another request")
    if bundle.state == "failed":
        if bundle.cost or bundle.stages:
            raise ReceiptError("a failed request must cost nothing")
        return 0
    if bundle.state != "finished" or not bundle.stages or bundle.num_output_tokens is None:
        raise ReceiptError(f"the request is {bundle.state}: its receipts are not final")
    _check_plan(bundle, chain, gateway)
    num_prompt_tokens = bundle.stages[0].receipt.prompt_tokens
    num_output_tokens = bundle.num_output_tokens
    if evidence is not None and evidence.complete and evidence.prompt_token_ids is not None:
        seen = (len(evidence.prompt_token_ids), len(evidence.token_ids))
        if seen != (num_prompt_tokens, num_output_tokens):
            raise ReceiptError(f"{(num_prompt_tokens, num_output_tokens)} tokens are charged, {seen} were seen")
    plan = SignedPlan(
        domain=chain.domain,
        request=bundle.message,
        assignments=[stage.assignment for stage in bundle.stages],
        signers={s.assignment.node: chain.nodes.node(s.assignment.node).signer for s in bundle.stages},
        num_prompt_tokens=num_prompt_tokens,
    )
    receipts = [SignedReceipt(receipt=s.receipt, signature=s.signature, records=s.records) for s in bundle.stages]
    problems = verify_job_receipts(receipts, plan, num_output_tokens, now=int(time.time()))
    if problems:
        raise ReceiptError(f"stage {problems[0].stage}: {problems[0].kind}: {problems[0].text}")
    return _check_cost(bundle, chain)


def _check_plan(bundle: ReceiptBundle, chain: Chain, gateway: str) -> None:
    """The stages follow one another over all layers, each ordered by the gateway at no more than the offer's price."""
    gateway_signer = chain.nodes.node(gateway).signer
    _, version = chain.models.current(bundle.message.model)
    at = 0
    for number, stage in enumerate(bundle.stages):
        assignment = stage.assignment
        if assignment.request != bundle.request or assignment.stage != number or assignment.first_layer != at:
            raise ReceiptError(f"stage {number} is not the one that follows")
        at = assignment.end_layer
        try:
            signer = recover(assignment, chain.domain, stage.assignment_signature)
        except BadSignature as error:
            raise ReceiptError(f"stage {number}'s assignment: {error}") from None
        if signer != gateway_signer:
            raise ReceiptError(f"stage {number}'s assignment is signed by {signer}, not by the gateway")
        offers = chain.nodes.offers(assignment.node, bundle.message.model)
        prices = assignment.prompt_price, assignment.output_price
        if not any(prices[0] <= offer.prompt_price and prices[1] <= offer.output_price for offer in offers):
            raise ReceiptError(f"stage {number} is charged above the offer of {assignment.node}")
    if at != version.num_layers:
        raise ReceiptError(f"the stages end at layer {at} of {version.num_layers}")


def _check_cost(bundle: ReceiptBundle, chain: Chain) -> int:
    earned = sum(stage.receipt.cost for stage in bundle.stages)
    if bundle.cost != earned + bundle.fee:
        raise ReceiptError(f"{bundle.cost} is charged, receipts and fee make {earned + bundle.fee}")
    if bundle.fee * BPS > earned * chain.ledger.max_fee_bps():
        raise ReceiptError(f"the fee {bundle.fee} is above the ledger's maximum")
    if bundle.cost > bundle.message.max_cost:
        raise ReceiptError(f"{bundle.cost} is charged, at most {bundle.message.max_cost} was signed")
    return bundle.cost


def check_tokens(evidence: Evidence, body: dict[str, Any], tokenizer: ModelTokenizer) -> None:
    """Hold the token ids that are charged to the text that was asked and the text that came.

    Raises:
        ReceiptError: more prompt tokens than the prompt has, or tokens that are not the answer's text.
    """
    if evidence.prompt_token_ids is None or not evidence.complete:
        return
    if "messages" in body:
        expected = tokenizer.encode_chat(body["messages"])
    else:
        prompt = body["prompt"]
        expected = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    if expected != evidence.prompt_token_ids:
        raise ReceiptError(f"{len(evidence.prompt_token_ids)} prompt tokens are charged, the prompt is {len(expected)}")
    output = tokenizer.output_text(_stop_strings(body), ignore_eos=bool(body.get("ignore_eos")))
    text = "".join(output.push(token_id) for token_id in evidence.token_ids) + output.flush()
    if text != evidence.text:
        raise ReceiptError("the tokens that are charged are not the text that came")


def _stop_strings(body: dict[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop") or ()
    return (stop,) if isinstance(stop, str) else tuple(stop)
