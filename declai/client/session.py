"""A requester's session wallet: signs requests with the session key and acknowledges only what it has checked.

The session key can spend one session's budget and nothing else, so it may be unlocked for as long as a program runs.
The wallet's own key is needed only to open, top up and close sessions.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from declai.chain.messages import Domain, InferenceRequest, digest, sign
from declai.chain.pricing import Tier
from declai.client.book import BookedState, SessionBook, SessionRecord
from declai.protocol.signed_requests import SALT_BYTES, SignedHeader, body_commitment

DEADLINE_S = 600


@dataclass(frozen=True)
class OutgoingRequest:
    """A request ready to send: its digest (0x-hex), nonce, and the `Authorization` header that carries it."""

    request: str
    nonce: int
    header: str
    message: InferenceRequest


class SessionWallet:
    """Signs requests of one session; every nonce and every cost is in the book before it matters."""

    def __init__(self, book: SessionBook, record: SessionRecord, key: LocalAccount) -> None:
        self.book = book
        self.record = record
        self.domain = Domain(chain_id=record.chain_id, ledger=record.ledger)
        self._key = key

    def sign(self, body: dict[str, Any], *, max_tokens: int, max_cost: int, tier: Tier) -> OutgoingRequest:
        """Sign an HTTP body for at most `max_cost` base units.

        Raises:
            SessionError: the session's budget does not cover it.
        """
        deadline = int(time.time()) + DEADLINE_S
        ticket = self.book.issue(self.record.id, max_cost, deadline)
        salt = secrets.token_bytes(SALT_BYTES)
        message = InferenceRequest(
            session=bytes.fromhex(self.record.id.removeprefix("0x")),
            nonce=ticket.nonce,
            model=keccak(text=body["model"]),
            body=body_commitment(salt, body),
            max_tokens=max_tokens,
            tier=tier.value,
            max_cost=max_cost,
            acked_below=ticket.acked_below,
            spent=ticket.spent,
            deadline=deadline,
        )
        request = "0x" + digest(message, self.domain).hex()
        self.book.name(self.record.id, ticket.nonce, request)
        signature = sign(message, self.domain, self._key)
        header = SignedHeader(request=message, salt=salt, signature=signature).encode()
        return OutgoingRequest(request, ticket.nonce, header, message)

    def accept(self, nonce: int, cost: int) -> None:
        """The receipts of `nonce` were checked: it cost `cost` and may be acknowledged."""
        self.book.close_request(self.record.id, nonce, BookedState.ACCEPTED, cost)

    def void(self, nonce: int) -> None:
        """`nonce` was refused or failed: it costs nothing."""
        self.book.close_request(self.record.id, nonce, BookedState.VOID, 0)

    def dispute(self, nonce: int) -> None:
        """The receipts of `nonce` do not check: it and what follows is never acknowledged."""
        self.book.close_request(self.record.id, nonce, BookedState.DISPUTED, 0)
