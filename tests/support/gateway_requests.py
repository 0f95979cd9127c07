"""Requests to the echo network's gateway, and what they leave behind: errors, rows, reservations, receipts."""

from __future__ import annotations

import json
from typing import Any

import httpx
import redis
from sqlalchemy import select

from declai.api.store.schema import requests
from declai.chain.messages import Assignment, Domain, InferenceRequest, recover
from declai.protocol.receipt_checks import SignedPlan, verify_job_receipts
from declai.protocol.receipts import SignedReceipt, acceptance_of
from tests.support.echo_network import MODEL, EchoNode, Network
from tests.support.waiting import wait_until

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
COMPLETION = {"model": MODEL, "prompt": "hi", "max_tokens": 5}


def error_of(
    response: httpx.Response, status: int, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() >= {"message", "type", "param", "code"}
    assert error["message"]
    if code is not None:
        assert error["code"] == code
    if param is not None:
        assert error["param"] == param
    return error


LONG = "abcdefghij " * 8


def ended(network: Network, request: str) -> Any:
    """The stored request once it has ended."""

    def found() -> Any:
        row = network.gateway.store.request(request)
        return row if row is not None and row.state != "running" else None

    return wait_until(found, "the request's end")


def reserved(network: Network) -> int:
    with redis.Redis.from_url(network.settings.redis_url.get_secret_value()) as client:
        return sum(client.hlen(key) for key in client.scan_iter("gateway:*:reserved"))  # type: ignore[misc]


def check_acceptance(network: Network, node: EchoNode, request: str) -> None:
    """The node keeps the gateway's word for its receipt, as the court would hear it."""
    stored = next(kept for kept in node.store.unpaid() if "0x" + kept.job.request_digest.hex() == request)
    assert stored.acceptance is not None
    domain = network.chain.domain
    accepted = acceptance_of(stored.receipt.receipt, domain)
    assert recover(accepted, domain, stored.acceptance) == network.gateway.keys.signer.address


def check_receipts(
    network: Network, receipts: dict[str, Any], usage: dict[str, int], more_signers: dict[str, str] | None = None
) -> None:
    """Anyone can: signatures, counts, prices, chains, neighbours."""
    plan = SignedPlan(
        domain=Domain(chain_id=network.chain.deployment.chain_id, ledger=network.chain.ledger.address),
        request=InferenceRequest.model_validate_json(json.dumps(receipts["message"])),
        assignments=[Assignment.model_validate_json(json.dumps(stage["assignment"])) for stage in receipts["stages"]],
        signers={node.address: node.signer.address for node in network.nodes} | (more_signers or {}),
        num_prompt_tokens=usage["prompt_tokens"],
    )
    signed = [
        SignedReceipt.model_validate_json(
            json.dumps({name: stage[name] for name in ("receipt", "signature", "records")})
        )
        for stage in receipts["stages"]
    ]
    assert verify_job_receipts(signed, plan, usage["completion_tokens"]) == []


def stored_requests(network: Network) -> list[Any]:
    """All requests that the store knows."""
    with network.gateway.store.engine.connect() as db:
        return list(db.execute(select(requests)).all())
