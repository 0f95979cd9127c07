"""Admission: what is let in is signed, fresh, priced and covered; each refusal is typed and charges nothing."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import rfc8785
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from declai.api.credits.admission import Admitted, Asked
from declai.api.errors import (
    AcknowledgementMismatch,
    BudgetExhausted,
    CapTooLow,
    DeadlineExpired,
    GatewayError,
    InvalidRequest,
    InvalidSignature,
    NonceReplayed,
    Overloaded,
    SessionUnusable,
    StageFailed,
)
from declai.chain.contracts.models import model_id
from declai.chain.messages import InferenceRequest, new_account, sign
from declai.chain.pricing import UNITS_PER_CREDIT, Tier
from declai.protocol.errors import InvalidSignedRequest
from declai.protocol.signed_requests import SCHEME, SignedHeader, parse_header
from tests.support.books import MODEL, Books

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
CAP = UNITS_PER_CREDIT // 10


class Wallet:
    """A payer's session key, which signs what it is told."""

    def __init__(self, books: Books, budget: int = UNITS_PER_CREDIT) -> None:
        self.books, self.key = books, new_account()
        self.session = books.market.open_session(budget, self.key)

    def header(self, body: dict[str, Any] | None = None, **changes: Any) -> SignedHeader:
        salt = bytes(32)
        values = {
            "session": bytes.fromhex(self.session[2:]),
            "nonce": 0,
            "model": model_id(MODEL),
            "body": keccak(salt + rfc8785.dumps(BODY if body is None else body)),
            "max_tokens": 8,
            "tier": 0,
            "max_cost": CAP,
            "acked_below": 0,
            "spent": 0,
            "deadline": int(time.time()) + 60,
        } | changes
        key = values.pop("key", self.key)
        message = InferenceRequest(**values)
        return SignedHeader(request=message, salt=salt, signature=sign(message, self.books.market.chain.domain, key))

    def admit(self, cap: int = CAP, **changes: Any) -> Admitted:
        asked = Asked(MODEL, BODY, 8, Tier.RESEARCH, cap)
        return self.books.admission.admit_signed(self.header(**changes), asked)


@pytest.fixture
def wallet(books: Books) -> Wallet:
    return Wallet(books)


def test_a_signed_request_is_let_in_once(wallet: Wallet) -> None:
    admitted = wallet.admit()
    assert admitted.session == wallet.session
    with pytest.raises(NonceReplayed):
        wallet.admit()
    cost = wallet.books.finish(admitted)
    later = wallet.admit(nonce=1, acked_below=1, spent=cost)
    wallet.books.admission.fail(later, "a stage was lost")
    wallet.admit(nonce=2, acked_below=2, spent=cost)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"key": new_account()}, InvalidSignature),
        ({"body": {**BODY, "max_tokens": 9}}, InvalidSignature),
        ({"model": model_id("test/other")}, InvalidSignature),
        ({"max_tokens": 9}, InvalidSignature),
        ({"tier": 1}, InvalidSignature),
        ({"deadline": int(time.time()) - 1}, DeadlineExpired),
        ({"deadline": int(time.time()) + 10**6}, DeadlineExpired),
        ({"max_cost": CAP - 1}, CapTooLow),
        ({"max_cost": 2 * UNITS_PER_CREDIT}, BudgetExhausted),
        ({"session": bytes(32)}, SessionUnusable),
        ({"nonce": 2**63}, InvalidRequest),
        ({"acked_below": 2**64 - 1}, InvalidRequest),
        ({"spent": 1}, AcknowledgementMismatch),
        ({"acked_below": 1}, AcknowledgementMismatch),
    ],
)
def test_what_does_not_hold_is_refused_and_charges_nothing(
    wallet: Wallet, changes: dict[str, Any], error: type[GatewayError]
) -> None:
    with pytest.raises(error) as refusal:
        wallet.admit(**changes)
    assert 400 <= refusal.value.status < 500
    assert len(refusal.value.message) > 20
    totals = wallet.books.store.session_totals(wallet.session)
    assert (totals.finished_total, totals.running) == (0, {})
    wallet.admit(nonce=1, acked_below=0)


def test_the_price_of_a_refusal_is_told(wallet: Wallet) -> None:
    with pytest.raises(CapTooLow) as refusal:
        wallet.admit(max_cost=CAP - 1)
    assert refusal.value.details == {"max_cost": str(CAP)}
    with pytest.raises(BudgetExhausted) as exhausted:
        wallet.admit(max_cost=UNITS_PER_CREDIT + 1)
    assert exhausted.value.details["left"] == str(UNITS_PER_CREDIT)


def test_a_payer_who_disagrees_with_the_books_is_told_what_they_say(wallet: Wallet) -> None:
    first, second = wallet.admit(), wallet.admit(nonce=1)
    cost = wallet.books.finish(first)
    with pytest.raises(AcknowledgementMismatch) as refusal:
        wallet.admit(nonce=2, acked_below=1, spent=cost - 1)
    assert refusal.value.details == {"acked_below": 1, "spent": str(cost), "running_below": 0}
    with pytest.raises(AcknowledgementMismatch) as running:
        wallet.admit(nonce=2, acked_below=2, spent=cost)
    assert running.value.details["running_below"] == 1
    wallet.books.finish(second)
    wallet.admit(nonce=2, acked_below=2, spent=2 * cost)


def test_only_so_much_may_stay_unacknowledged(wallet: Wallet) -> None:
    costs = [wallet.books.finish(wallet.admit(cap=CAP // 20, max_cost=CAP // 20, nonce=nonce)) for nonce in range(17)]
    with pytest.raises(Overloaded, match="unacknowledged"):
        wallet.admit(nonce=17)
    wallet.admit(nonce=17, acked_below=17, spent=sum(costs))


def test_signed_requests_settle_with_their_acknowledgements(wallet: Wallet) -> None:
    costs = [wallet.books.finish(wallet.admit(nonce=nonce)) for nonce in range(3)]
    costs.append(wallet.books.finish(wallet.admit(nonce=3, acked_below=2, spent=sum(costs[:2]))))
    wallet.books.settlement.run()
    assert wallet.books.market.session(wallet.session).settled == sum(costs)


def test_a_session_of_another_gateway_or_key_is_refused(books: Books) -> None:
    session = books.market.open_session(key=new_account())
    with pytest.raises(SessionUnusable, match="key"):
        books.admit(session)
    with pytest.raises(SessionUnusable, match="not on chain"):
        books.admit("0x" + "77" * 32)


def test_api_key_requests_at_once_get_nonces_of_their_own_and_stay_in_budget(books: Books) -> None:
    session = books.market.open_session(UNITS_PER_CREDIT)

    def ask(_: int) -> Admitted | BudgetExhausted:
        try:
            return books.admit(session, max_cost=UNITS_PER_CREDIT // 5)
        except BudgetExhausted as error:
            return error

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(ask, range(12)))
    admitted = [outcome for outcome in outcomes if isinstance(outcome, Admitted)]
    assert 4 <= len(admitted) <= 5, "at the very end of a budget two may refuse each other"
    assert len({item.message.nonce for item in admitted}) == len(admitted)
    costs = [books.finish(item) for item in admitted]
    books.settlement.run()
    assert books.market.session(session).settled == sum(costs)


def test_a_set_of_requests_enters_whole_or_not_at_all(books: Books) -> None:
    session = books.market.open_session(UNITS_PER_CREDIT)
    asked = Asked(MODEL, {}, 8, Tier.RESEARCH, UNITS_PER_CREDIT // 4)
    with pytest.raises(BudgetExhausted):
        books.admission.admit_keyed_set(session, asked, 5)
    totals = books.store.session_totals(session)
    assert (totals.finished_total, totals.running) == (0, {})
    admitted = books.admission.admit_keyed_set(session, asked, 4)
    assert len({item.message.nonce for item in admitted}) == 4
    costs = [books.finish(item) for item in admitted]
    books.settlement.run()
    assert books.market.session(session).settled == sum(costs)


def test_receipts_above_the_cap_are_not_recorded(books: Books) -> None:
    session = books.market.open_session()
    admitted = books.admit(session, max_cost=10)
    with pytest.raises(StageFailed, match="nothing is charged"):
        books.finish(admitted)
    books.admission.fail(admitted, "too dear")
    assert books.store.session_totals(session).finished_total == 0


def test_a_budget_that_was_topped_up_is_seen(books: Books) -> None:
    market = books.market
    session = market.open_session(UNITS_PER_CREDIT)
    books.index.sync()
    with pytest.raises(BudgetExhausted):
        books.admit(session, max_cost=2 * UNITS_PER_CREDIT)
    market.world.send(market.payer, market.chain.ledger.top_up(bytes.fromhex(session[2:]), 2 * UNITS_PER_CREDIT))
    books.index.sync()
    books.admit(session, max_cost=2 * UNITS_PER_CREDIT)


def encode(text: bytes) -> str:
    return SCHEME + base64.urlsafe_b64encode(text).decode()


def test_headers_are_read_with_and_without_padding(wallet: Wallet) -> None:
    header = wallet.header()
    value = encode(header.model_dump_json().encode())
    assert parse_header(value) == parse_header(value.rstrip("=")) == parse_header(header.encode()) == header


@pytest.mark.parametrize(
    "value",
    [
        SCHEME,
        SCHEME + "!!!",
        SCHEME + "\u00e9",
        encode(b"null"),
        encode(b"[" * 5000),
        encode(json.dumps({"request": {}, "salt": "0x", "signature": "0x"}).encode()),
        encode(b"\xff\xfe"),
        SCHEME + "A" * 9000,
    ],
)
def test_headers_that_are_none_are_refused(value: str) -> None:
    with pytest.raises(InvalidSignedRequest):
        parse_header(value)


@given(st.text(max_size=200) | st.binary(max_size=200).map(encode))
def test_no_header_breaks_the_parser(value: str) -> None:
    with pytest.raises(InvalidSignedRequest):
        parse_header(value)


def test_a_request_whose_reservation_fails_does_not_stay_running(
    open_books: Callable[..., Books], monkeypatch: pytest.MonkeyPatch
) -> None:
    books = open_books()
    session = books.market.open_session()

    def broken(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(books.reservations, "reserve", broken)
    with pytest.raises(OSError, match="no"):
        books.admit(session)
    assert books.store.session_totals(session).running == {}
