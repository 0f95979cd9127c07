"""Requests signed by a session key: the `Authorization: DeCLAI ...` header, parsed and held to body, time and books."""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import dataclass
from typing import Any

import rfc8785
from eth_utils.crypto import keccak
from pydantic import BaseModel, ConfigDict

from declai.api.errors import AcknowledgementMismatch, DeadlineExpired, InvalidSignature, Overloaded
from declai.api.store.store import Store
from declai.chain.errors import BadSignature
from declai.chain.fields import Bytes32, Signature
from declai.chain.messages import Domain, InferenceRequest, digest, recover

SCHEME = "DeCLAI "
MAX_HEADER_CHARS = 8192
MAX_AHEAD_S = 3600


class SignedHeader(BaseModel):
    """The JSON inside the header."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: InferenceRequest
    salt: Bytes32
    signature: Signature


@dataclass(frozen=True)
class SignedRequest:
    """A request that a session key signed, and its digest as 0x-hex."""

    message: InferenceRequest
    signature: bytes
    request: str

    @property
    def session(self) -> str:
        return "0x" + self.message.session.hex()


def parse_header(value: str) -> SignedHeader:
    """Read the header. Raises InvalidSignature."""
    if len(value) > MAX_HEADER_CHARS:
        raise InvalidSignature(f"the Authorization header is over {MAX_HEADER_CHARS} characters")
    try:
        encoded = value.removeprefix(SCHEME).strip().rstrip("=")
        text = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        return SignedHeader.model_validate_json(text)
    except (binascii.Error, ValueError):  # pydantic's and Unicode's errors are ValueErrors
        raise InvalidSignature(
            "the Authorization header is not base64url JSON with request, salt and signature (see docs/http.md)"
        ) from None


def check_signed(
    header: SignedHeader, body: dict[str, Any], *, key: str, domain: Domain, model: bytes
) -> SignedRequest:
    """Hold a signed request to its body, its model, its key and the clock.

    Raises:
        InvalidSignature: another body or model was signed, or another key signed.
        DeadlineExpired: too late, or too far ahead.
    """
    message = header.request
    try:
        committed = keccak(header.salt + rfc8785.dumps(body))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise InvalidSignature(f"the body has no canonical JSON: {error}") from None
    if committed != message.body:
        raise InvalidSignature("the signature is for another body")
    if message.model != model:
        raise InvalidSignature("the signature is for another model")
    try:
        signer = recover(message, domain, header.signature)
    except BadSignature as error:
        raise InvalidSignature(str(error)) from None
    if signer != key:
        raise InvalidSignature(f"signed by {signer}, the session's key is {key}")
    now = time.time()
    if message.deadline <= now:
        raise DeadlineExpired(f"the request's deadline passed {now - message.deadline:.0f} s ago: sign a new one")
    if message.deadline > now + MAX_AHEAD_S:
        raise DeadlineExpired(f"a deadline lies at most {MAX_AHEAD_S} s ahead")
    return SignedRequest(message, header.signature, "0x" + digest(message, domain).hex())


def check_acknowledgement(store: Store, signed: SignedRequest, max_unacknowledged: int) -> None:
    """Hold `ackedBelow` and `spent` to the gateway's books.

    Raises:
        AcknowledgementMismatch: the books say otherwise; the details let the payer reconcile.
        Overloaded: too many finished requests are not acknowledged yet.
    """
    message = signed.message
    # Nobody has agreed to costs at or above the nonce that he signs: those above stay free to be used.
    acked_below = min(message.acked_below, message.nonce)
    spent, num_running, num_unacknowledged = store.spent_below(signed.session, acked_below, message.spent)
    details = {"acked_below": acked_below, "spent": str(spent), "running_below": num_running}
    if message.acked_below > message.nonce:
        raise AcknowledgementMismatch(
            f"a request with nonce {message.nonce} cannot acknowledge what lies below {message.acked_below}",
            details=details,
        )
    if num_running or spent != message.spent:
        raise AcknowledgementMismatch(
            f"requests with nonce below {acked_below} cost {spent} base units here, {message.spent} is "
            "acknowledged: fetch their receipts and sign again",
            details=details,
        )
    if num_unacknowledged > max_unacknowledged:
        raise Overloaded(f"{num_unacknowledged} finished requests are unacknowledged: acknowledge them first")
