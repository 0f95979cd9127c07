"""Requests signed by a session key: the `Authorization: DeCLAI ...` header, what it says, and what it is held to.

The header is base64url JSON. What is signed commits to the request's body: keccak256(salt || RFC 8785 canonical JSON).
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

import rfc8785
from eth_utils.crypto import keccak

from declai.chain.errors import BadSignature
from declai.chain.fields import Bytes32, Signature
from declai.chain.messages import Domain, InferenceRequest, digest, recover
from declai.protocol.errors import InvalidSignedRequest, SignedRequestExpired
from declai.protocol.message import ProtocolMessage

SCHEME = "DeCLAI "
MAX_HEADER_CHARS = 8192
MAX_AHEAD_S = 3600
SALT_BYTES = 32


class SignedHeader(ProtocolMessage):
    """The JSON inside the header."""

    request: InferenceRequest
    salt: Bytes32
    signature: Signature

    def encode(self) -> str:
        """The header's value; `parse_header` reads it back."""
        text = json.dumps(self.model_dump(mode="json"), separators=(",", ":"))
        return SCHEME + base64.urlsafe_b64encode(text.encode()).decode()


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
    """Read the header. Raises InvalidSignedRequest."""
    if len(value) > MAX_HEADER_CHARS:
        raise InvalidSignedRequest(f"the Authorization header is over {MAX_HEADER_CHARS} characters")
    try:
        encoded = value.removeprefix(SCHEME).strip().rstrip("=")
        text = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        return SignedHeader.model_validate_json(text)
    except (binascii.Error, ValueError):  # pydantic's and Unicode's errors are ValueErrors
        raise InvalidSignedRequest(
            "the Authorization header is not base64url JSON with request, salt and signature (see docs/http.md)"
        ) from None


def body_commitment(salt: bytes, body: dict[str, Any]) -> bytes:
    """keccak256(salt || RFC 8785 canonical JSON of the HTTP body): what `InferenceRequest.body` holds.

    Raises InvalidSignedRequest when the body has no canonical form.
    """
    try:
        return keccak(salt + rfc8785.dumps(body))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise InvalidSignedRequest(f"the body has no canonical JSON: {error}") from None


def check_signed(
    header: SignedHeader, body: dict[str, Any], *, key: str, domain: Domain, model: bytes, now: float
) -> SignedRequest:
    """Hold a signed request to its body, its model, its key and the moment (Unix seconds).

    Raises:
        InvalidSignedRequest: another body or model was signed, or another key signed.
        SignedRequestExpired: too late, or too far ahead.
    """
    message = header.request
    if body_commitment(header.salt, body) != message.body:
        raise InvalidSignedRequest("the signature is for another body")
    if message.model != model:
        raise InvalidSignedRequest("the signature is for another model")
    try:
        signer = recover(message, domain, header.signature)
    except BadSignature as error:
        raise InvalidSignedRequest(str(error)) from None
    if signer != key:
        raise InvalidSignedRequest(f"signed by {signer}, the session's key is {key}")
    if message.deadline <= now:
        raise SignedRequestExpired(f"the request's deadline passed {now - message.deadline:.0f} s ago: sign a new one")
    if message.deadline > now + MAX_AHEAD_S:
        raise SignedRequestExpired(f"a deadline lies at most {MAX_AHEAD_S} s ahead")
    return SignedRequest(message, header.signature, "0x" + digest(message, domain).hex())
