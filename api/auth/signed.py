"""Requests signed by a session key, as the gateway holds them to protocol, clock and books."""

from __future__ import annotations

import time
from typing import Any

from declai.api.errors import AcknowledgementMismatch, DeadlineExpired, InvalidSignature, Overloaded
from declai.api.store.store import Store
from declai.chain.messages import Domain
from declai.protocol.errors import InvalidSignedRequest, SignedRequestExpired
from declai.protocol.signed_requests import SignedHeader, SignedRequest, check_signed, parse_header


def read_header(value: str) -> SignedHeader:
    """Read the `Authorization` header. Raises InvalidSignature."""
    try:
        return parse_header(value)
    except InvalidSignedRequest as error:
        raise InvalidSignature(str(error)) from None


def check_now(header: SignedHeader, body: dict[str, Any], *, key: str, domain: Domain, model: bytes) -> SignedRequest:
    """Hold a signed request to its body, its model, its key and this moment.

    Raises:
        InvalidSignature: another body or model was signed, or another key signed.
        DeadlineExpired: too late, or too far ahead.
    """
    try:
        return check_signed(header, body, key=key, domain=domain, model=model, now=time.time())
    except SignedRequestExpired as error:
        raise DeadlineExpired(str(error)) from None
    except InvalidSignedRequest as error:
        raise InvalidSignature(str(error)) from None


def check_acknowledgement(store: Store, signed: SignedRequest, max_unacknowledged: int) -> None:
    """Hold `ackedBelow` and `spent` to the gateway's books.

    Raises:
        AcknowledgementMismatch: the books say otherwise; the details let the payer reconcile.
        Overloaded: too many finished requests are not acknowledged yet.
    """
    message = signed.message
    # Nobody has agreed to costs at or above the nonce that is signed: those above stay free to be used.
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
