"""Sign-in messages by property: what is composed is read back, and no other text is read as the same message."""

from __future__ import annotations

import string
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import example, given
from hypothesis import strategies as st

from declai.protocol import siwe
from declai.protocol.errors import MalformedSignIn

LETTERS_AND_DIGITS = string.ascii_letters + string.digits
STATEMENT = st.text(LETTERS_AND_DIGITS + "-._~:/?#[]@!$&'()*+,;= ", min_size=1, max_size=80)
RESOURCE = st.binary(min_size=32, max_size=32).map(lambda session: f"declai:session:0x{session.hex()}")


@st.composite
def messages(draw: st.DrawFn) -> tuple[str, dict[str, object]]:
    """A composed message and what it was composed of."""
    host = draw(st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20))
    domain = f"{host}.example" + draw(st.sampled_from(["", ":8080"]))
    parts: dict[str, object] = {
        "domain": domain,
        "uri": f"https://{domain}" + draw(st.sampled_from(["", "/", "/v1/auth?x=1&y=%20"])),
        "address": to_checksum_address(draw(st.binary(min_size=20, max_size=20))),
        "chain_id": draw(st.integers(1, 10**15)),
        "nonce": draw(st.text(LETTERS_AND_DIGITS, min_size=8, max_size=64)),
        "issued_at": draw(st.integers(0, 2**33).map(lambda second: datetime.fromtimestamp(second, UTC))),
        "statement": draw(STATEMENT),
        "resources": tuple(draw(st.lists(RESOURCE, max_size=3))),
    }
    return siwe.compose(**parts), parts  # type: ignore[arg-type]


@given(messages())
def test_what_is_composed_is_read_back(composed: tuple[str, dict[str, object]]) -> None:
    message, parts = composed
    found = siwe.parse(message)
    assert {name: getattr(found, name) for name in parts} == parts


CHARACTERS = st.sampled_from("\n\r\t \x00\x7f:/-+.,Zz0178aA\u0660\u0661\u00e9\u2028\uff11") | st.characters()


@given(messages(), st.data())
def test_no_single_change_goes_unseen(composed: tuple[str, dict[str, object]], data: st.DataObject) -> None:
    """A character replaced, put in or taken out: the message is refused, or says something else."""
    message, _ = composed
    at = data.draw(st.integers(0, len(message) - 1))
    width = data.draw(st.integers(0, 1))
    changed = message[:at] + data.draw(CHARACTERS | st.just("")) + message[at + width :]
    if changed == message:
        return
    with suppress(MalformedSignIn):
        assert siwe.parse(changed) != siwe.parse(message)


WHOLE = """https://gateway.example wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

Sign in

URI: https://gateway.example
Version: 1
Chain ID: 31337
Nonce: 0123456789abcdef
Issued At: 2026-01-02T03:04:05Z
Expiration Time: 2026-01-02T03:04:06Z
Not Before: 2026-01-02T03:04:04Z
Request ID: a7
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/"""


@given(st.integers(0, len(WHOLE) - 1), CHARACTERS)
@example(WHOLE.index("31337"), "\u0663")
@example(WHOLE.index("https"), "x")
@example(WHOLE.index("a7"), "b")
@example(WHOLE.index("a7"), "\r")
@example(WHOLE.index("2026-01-02T03:04:05Z"), "\uff12")
def test_every_optional_field_counts(at: int, character: str) -> None:
    changed = WHOLE[:at] + character + WHOLE[at + 1 :]
    if changed == WHOLE:
        return
    with suppress(MalformedSignIn):
        assert siwe.parse(changed) != siwe.parse(WHOLE)


def test_optional_fields_are_read() -> None:
    found = siwe.parse(WHOLE)
    assert (found.scheme, found.request_id) == ("https", "a7")
    assert found == replace(found, statement="Sign in")
    assert siwe.parse(WHOLE.replace("Request ID: a7", "Request ID: ")).request_id == ""


@pytest.mark.parametrize("bad", ["a b", "a\u00e9", "a\r", "%zz", "a/b"])
def test_a_request_id_is_what_a_path_segment_may_hold(bad: str) -> None:
    with pytest.raises(MalformedSignIn):
        siwe.parse(WHOLE.replace("Request ID: a7", f"Request ID: {bad}"))
