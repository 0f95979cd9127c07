"""Admission: a request enters when its signature, nonce, books and budget hold; it leaves finished or failed.

The order makes every crash harmless: the store records a request before Redis holds its cap, and its end before Redis
lets go. Methods block: call them in a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from eth_account.signers.local import LocalAccount

from declai.api.auth.signed import check_acknowledgement, check_now
from declai.api.auth.signin import check_session
from declai.api.credits.reservations import Reservations, exhausted
from declai.api.errors import (
    BudgetExhausted,
    CapTooLow,
    GatewayError,
    InvalidRequest,
    InvalidSignature,
    NonceReplayed,
    Overloaded,
    StageFailed,
)
from declai.api.store.records import StoredStage
from declai.api.store.schema import MAX_INTEGER
from declai.api.store.store import Store
from declai.chain.client import Chain
from declai.chain.contracts.ledger import SessionState
from declai.chain.contracts.models import model_id
from declai.chain.index import EventIndex
from declai.chain.messages import InferenceRequest, digest, sign
from declai.chain.pricing import Tier, format_credits
from declai.protocol.signed_requests import SignedHeader, SignedRequest

REQUEST_TTL_S = 600
# A claim lists what ended above the oldest request that still runs: its gas must stay below a block's.
MAX_ENDED_ABOVE = 512


@dataclass(frozen=True)
class Asked:
    """What a request wants, priced: `max_cost` is the most that the chosen plan may cost, in base units."""

    model: str
    body: dict[str, object]
    max_tokens: int
    tier: Tier
    max_cost: int


@dataclass(frozen=True)
class Admitted:
    """A request that may run: recorded, and its cap reserved."""

    request: str
    session: str
    message: InferenceRequest
    signature: bytes


class Admission:
    """Lets requests in and out for one gateway."""

    def __init__(
        self,
        store: Store,
        reservations: Reservations,
        chain: Chain,
        index: EventIndex,
        *,
        gateway: str,
        session_account: LocalAccount,
        max_unacknowledged: int,
    ) -> None:
        self._store = store
        self._reservations = reservations
        self._chain = chain
        self._index = index
        self._gateway = gateway
        self._session_account = session_account
        self._max_unacknowledged = max_unacknowledged
        self._numbering = threading.Lock()

    def admit_signed(self, header: SignedHeader, asked: Asked) -> Admitted:
        """Let in a request that the payer's session key signed.

        Raises:
            GatewayError: one of the typed refusals; nothing is charged.
        """
        if max(header.request.nonce, header.request.acked_below) > MAX_INTEGER:
            raise InvalidRequest(f"nonce and ackedBelow are at most {MAX_INTEGER}: count up from 0", param="nonce")
        session = "0x" + header.request.session.hex()
        state = self._session(session)
        signed = check_now(header, asked.body, key=state.key, domain=self._chain.domain, model=model_id(asked.model))
        message = signed.message
        if message.tier != asked.tier or message.max_tokens != asked.max_tokens:
            raise InvalidSignature("the signature is for another tier or max_tokens than the body asks for")
        if message.max_cost < asked.max_cost:
            raise CapTooLow(
                f"this request may cost {format_credits(asked.max_cost)} credits, at most "
                f"{format_credits(message.max_cost)} are signed: ask POST /v1/estimate and sign again",
                details={"max_cost": str(asked.max_cost)},
            )
        check_acknowledgement(self._store, signed, self._max_unacknowledged)
        self._store.begin_request(signed.request, signed.message, signed.signature)
        return self._reserve(signed, state)

    def admit_keyed(self, session: str, asked: Asked) -> Admitted:
        """Let in a request that came with an API key: the gateway signs it with the session's key, which it holds."""
        state = self._session(session)
        check_session(state, session, gateway=self._gateway, key=self._session_account.address)
        # One at a time here; another process of this gateway may still take the nonce first.
        with self._numbering:
            for _ in range(8):
                signed = self._sign_keyed(session, asked)
                try:
                    self._store.begin_request(signed.request, signed.message, signed.signature)
                    break
                except NonceReplayed:
                    continue
            else:
                raise Overloaded("too many requests of this session at once: try again")
        return self._reserve(signed, state)

    def admit_keyed_set(self, session: str, asked: Asked, count: int) -> list[Admitted]:
        """Let in `count` requests as `admit_keyed` lets in one: all of them, or none."""
        admitted: list[Admitted] = []
        try:
            while len(admitted) < count:
                admitted.append(self.admit_keyed(session, asked))
        except BaseException as error:
            for request in admitted:
                self.fail(request, "another choice of the same answer was refused")
            if isinstance(error, BudgetExhausted):  # counted beside the choices that were let in before it
                left = int(error.details["left"]) + len(admitted) * asked.max_cost
                raise exhausted(count * asked.max_cost, left) from None
            raise
        return admitted

    def _sign_keyed(self, session: str, asked: Asked) -> SignedRequest:
        acked_below, spent, num_above = self._store.acknowledgement(session)
        if num_above > MAX_ENDED_ABOVE:
            raise Overloaded(f"{num_above} requests of this session ended while an older one runs: wait for that one")
        message = InferenceRequest(
            session=bytes.fromhex(session[2:]),
            nonce=self._store.session_totals(session).next_nonce,
            model=model_id(asked.model),
            body=bytes(32),  # whoever asks by API key trusts the gateway with the session: nothing to commit to
            max_tokens=asked.max_tokens,
            tier=asked.tier,
            max_cost=asked.max_cost,
            acked_below=acked_below,
            spent=spent,
            deadline=int(time.time()) + REQUEST_TTL_S,
        )
        signature = sign(message, self._chain.domain, self._session_account)
        return SignedRequest(message, signature, "0x" + digest(message, self._chain.domain).hex())

    def finish(
        self,
        admitted: Admitted,
        *,
        finish_reason: str,
        num_prompt_tokens: int,
        num_output_tokens: int,
        fee: int,
        stages_done: Sequence[StoredStage],
    ) -> int:
        """Record the end with its receipts, durably, then free the reservation; returns the cost in base units.

        Raises:
            StageFailed: the receipts add up to more than the cap that was signed; nothing is recorded.
        """
        asked_for = sum(stage.cost for stage in stages_done) + fee
        if asked_for > admitted.message.max_cost:
            raise StageFailed(
                f"the stages ask for {format_credits(asked_for)} credits, the cap was "
                f"{format_credits(admitted.message.max_cost)}; nothing is charged"
            )
        cost = self._store.finish_request(
            admitted.request,
            finish_reason=finish_reason,
            num_prompt_tokens=num_prompt_tokens,
            num_output_tokens=num_output_tokens,
            fee=fee,
            stages_done=stages_done,
        )
        self._reservations.release(admitted.session, admitted.request, cost)
        return cost

    def fail(self, admitted: Admitted, error: str) -> None:
        """Record that the request cost nothing, and free its reservation."""
        self._store.fail_request(admitted.request, error)
        self._reservations.release(admitted.session, admitted.request, 0)

    def _session(self, session: str) -> SessionState:
        key = bytes.fromhex(session[2:])
        # The index follows the chain every few seconds; only a session it has not seen yet costs a call.
        state = self._index.state.sessions.get(key) or self._chain.ledger.session(key)
        check_session(state, session, gateway=self._gateway, key=None)
        return state

    def _reserve(self, signed: SignedRequest, state: SessionState) -> Admitted:
        try:
            self._reservations.reserve(signed.session, signed.request, signed.message.max_cost, state.budget)
        except BaseException as error:
            # A request that stays running would hold its cap, and what may be acknowledged, until the next start.
            reason = error.message if isinstance(error, GatewayError) else type(error).__name__
            self._store.fail_request(signed.request, reason)
            raise
        return Admitted(signed.request, signed.session, signed.message, signed.signature)
