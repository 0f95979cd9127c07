"""Signed messages: equal to the contracts and to eth-account, and nothing malleable passes."""

from __future__ import annotations

import contextlib

import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from declai.chain.errors import BadSignature
from declai.chain.messages import (
    SECP256K1_N,
    Assignment,
    Domain,
    InferenceReceipt,
    InferenceRequest,
    SessionClose,
    SignedMessage,
    compact_signature,
    digest,
    new_account,
    recover,
    recover_text,
    sign,
    sign_text,
)
from tests.support.world import World

bytes32 = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())


def uint(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


REQUESTS = st.builds(
    InferenceRequest,
    session=bytes32,
    nonce=uint(64),
    model=bytes32,
    body=bytes32,
    max_tokens=uint(32),
    tier=uint(8),
    max_cost=uint(128),
    acked_below=uint(64),
    spent=uint(128),
    deadline=uint(64),
)
ASSIGNMENTS = st.builds(
    Assignment,
    request=bytes32,
    stage=uint(8),
    first_layer=uint(16),
    end_layer=uint(16),
    numeric_profile=uint(8),
    shard=bytes32,
    node=addresses,
    prompt_price=uint(128),
    output_price=uint(128),
    attempt=uint(32),
    deadline=uint(64),
)
RECEIPTS = st.builds(
    InferenceReceipt,
    assignment=bytes32,
    node=addresses,
    prompt_tokens=uint(32),
    output_tokens=uint(32),
    inputs=bytes32,
    outputs=bytes32,
    cost=uint(128),
    started_at=uint(64),
    finished_at=uint(64),
)
CLOSES = st.builds(SessionClose, session=bytes32, settled=uint(128), deadline=uint(64))
MESSAGES: st.SearchStrategy[SignedMessage] = st.one_of(REQUESTS, ASSIGNMENTS, RECEIPTS, CLOSES)
DOMAIN = Domain(chain_id=31337, ledger="0x" + "42" * 20)


@given(message=MESSAGES)
def test_digests_equal_eth_accounts_encoder(message: SignedMessage) -> None:
    encoded = encode_typed_data(full_message=message.typed_data(DOMAIN))
    assert digest(message, DOMAIN) == _hash_eip191_message(encoded)


@given(message=MESSAGES)
def test_json_round_trips_exactly(message: SignedMessage) -> None:
    assert type(message).model_validate_json(message.model_dump_json()) == message


def test_digests_equal_the_ledgers(world: World) -> None:
    ledger, domain = world.chain.ledger, world.chain.domain

    @settings(max_examples=15, deadline=None)
    @given(request=REQUESTS, assignment=ASSIGNMENTS, receipt=RECEIPTS, close=CLOSES)
    def check(
        request: InferenceRequest, assignment: Assignment, receipt: InferenceReceipt, close: SessionClose
    ) -> None:
        assert ledger.hash_request(request) == digest(request, domain)
        assert ledger.hash_assignment(assignment) == digest(assignment, domain)
        assert ledger.hash_receipt(receipt) == digest(receipt, domain)
        assert ledger.hash_session_close(close) == digest(close, domain)

    check()


@given(message=MESSAGES, flipped=st.integers(0, 65 * 8 - 1))
@settings(max_examples=60)
def test_signatures_recover_and_no_changed_bit_passes(message: SignedMessage, flipped: int) -> None:
    account = new_account()
    signature = sign(message, DOMAIN, account)
    assert recover(message, DOMAIN, signature) == account.address
    changed = bytearray(signature)
    changed[flipped // 8] ^= 1 << flipped % 8
    with contextlib.suppress(BadSignature):
        assert recover(message, DOMAIN, bytes(changed)) != account.address


def test_the_twin_of_a_signature_is_refused() -> None:
    message, account = SessionClose(session=bytes(32), settled=1, deadline=2), new_account()
    signature = sign(message, DOMAIN, account)
    twin_s = SECP256K1_N - int.from_bytes(signature[32:64], "big")
    twin = signature[:32] + twin_s.to_bytes(32, "big") + bytes([27 + 28 - signature[64]])
    with pytest.raises(BadSignature, match="malleable"):
        recover(message, DOMAIN, twin)


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\0" * 65, b"\xff" * 65, b"\0" * 66])
def test_malformed_signatures_are_typed_errors(signature: bytes) -> None:
    with pytest.raises(BadSignature):
        recover(SessionClose(session=bytes(32), settled=0, deadline=0), DOMAIN, signature)


@given(message=REQUESTS)
def test_another_chain_or_ledger_gives_another_digest(message: InferenceRequest) -> None:
    others = [Domain(chain_id=1, ledger=DOMAIN.ledger), Domain(chain_id=31337, ledger="0x" + "43" * 20)]
    assert len({digest(message, domain) for domain in [DOMAIN, *others]}) == 3


@given(text=st.text(max_size=200))
@settings(max_examples=30)
def test_texts_are_signed_as_eip191_says(text: str) -> None:
    account = new_account()
    assert recover_text(text, sign_text(text, account)) == account.address


@given(message=REQUESTS)
@settings(max_examples=30)
def test_compact_signatures_keep_everything(message: InferenceRequest) -> None:
    signature = sign(message, DOMAIN, new_account())
    r, vs = compact_signature(signature)
    assert r == signature[:32]
    assert int.from_bytes(vs, "big") % 2**255 == int.from_bytes(signature[32:64], "big")
    assert 27 + (vs[0] >> 7) == signature[64]


@pytest.mark.parametrize("value", [-1, 2**128, "1.0", " 1", "0x1", "1_0", True, None, 1.0])
def test_amounts_are_decimal_integers_within_bounds(value: object) -> None:
    with pytest.raises(ValidationError):
        SessionClose.model_validate({"session": bytes(32), "settled": value, "deadline": 0})


def test_a_mistyped_address_is_noticed() -> None:
    good = new_account().address
    swapped = good[:-1] + good[-1].swapcase() if good[-1].isalpha() else good[:2] + good[2:].swapcase()
    with pytest.raises(ValidationError):
        Domain.model_validate({"chain_id": 1, "ledger": swapped}, strict=False)
