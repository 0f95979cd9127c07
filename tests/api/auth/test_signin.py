"""Sign-in with a wallet: EIP-4361's grammar, one sign-in per nonce, contract wallets, keys bound to one session."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount
from hypothesis import given
from hypothesis import strategies as st

from declai.api.auth.signin import SignInService, check_session, hash_key
from declai.api.errors import AuthenticationFailed, InvalidSignature, SessionUnusable
from declai.api.store.store import Store
from declai.chain.messages import new_account, sign_text
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.protocol import siwe
from declai.protocol.errors import MalformedSignIn, SignInRefused
from tests.support.books import Market
from tests.support.world import rpc

pytestmark = pytest.mark.every_chain

DOMAIN, URI, CHAIN_ID = "gateway.example", "https://gateway.example", 31337
ADDRESS = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
SPEC_EXAMPLE = """example.com wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

I accept the ExampleOrg Terms of Service: https://example.com/tos

URI: https://example.com/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json"""


def lines_of(**changes: str | None) -> str:
    """A message without statement; a change of None drops a line."""
    values = {
        "URI": URI,
        "Version": "1",
        "Chain ID": str(CHAIN_ID),
        "Nonce": "0123456789abcdef",
        "Issued At": datetime.now(UTC).isoformat(timespec="seconds"),
    } | changes
    fields = [f"{name}: {value}" for name, value in values.items() if value is not None]
    head = f"{DOMAIN} wants you to sign in with your Ethereum account:"
    return "\n".join([head, ADDRESS, "", "", *fields])


def check_here(message: str) -> None:
    siwe.check(siwe.parse(message), domain=DOMAIN, chain_id=CHAIN_ID, max_age_s=300, now=datetime.now(UTC))


def test_the_specifications_example_is_read() -> None:
    found = siwe.parse(SPEC_EXAMPLE)
    assert found.domain == "example.com"
    assert found.address == ADDRESS
    assert found.statement == "I accept the ExampleOrg Terms of Service: https://example.com/tos"
    assert (found.uri, found.chain_id, found.nonce) == ("https://example.com/login", 1, "32891756")
    assert found.issued_at == datetime(2021, 9, 30, 16, 25, 24, tzinfo=UTC)
    assert found.resources[1] == "https://example.com/my-web2-claim.json"
    assert siwe.parse(SPEC_EXAMPLE.replace("example.com wants", "https://example.com wants")).domain == "example.com"


@pytest.mark.parametrize(
    "message",
    [
        "",
        SPEC_EXAMPLE.replace("Ethereum", "Bitcoin"),
        SPEC_EXAMPLE.replace(ADDRESS, ADDRESS.lower()),
        SPEC_EXAMPLE.replace(ADDRESS, ADDRESS[:-1]),
        SPEC_EXAMPLE.replace("\n\nURI", "\nURI"),
        SPEC_EXAMPLE.replace("Terms", "T\u00e9rms"),
        SPEC_EXAMPLE.replace("Version: 1", "Version: 2"),
        SPEC_EXAMPLE.replace("Chain ID: 1", "Chain ID: 0x1"),
        SPEC_EXAMPLE.replace("32891756", "3289175"),
        SPEC_EXAMPLE.replace("32891756", "3289 1756"),
        SPEC_EXAMPLE.replace("2021-09-30T16:25:24Z", "2021-09-30"),
        SPEC_EXAMPLE.replace("2021-09-30T16:25:24Z", "2021-13-30T16:25:24Z"),
        SPEC_EXAMPLE.replace("https://example.com/login", "not a uri"),
        SPEC_EXAMPLE.replace("Version: 1\nChain ID: 1", "Chain ID: 1\nVersion: 1"),
        SPEC_EXAMPLE.replace("Nonce: 32891756", "Nonce: 32891756\nNonce: 32891756"),
        SPEC_EXAMPLE.replace("- https", "https"),
        SPEC_EXAMPLE + "\n",
        SPEC_EXAMPLE + "x" * 5000,
        SPEC_EXAMPLE.replace("\n", "\r\n"),
    ],
)
def test_whatever_departs_from_the_grammar_is_refused(message: str) -> None:
    with pytest.raises(MalformedSignIn):
        siwe.parse(message)


@given(st.data())
def test_no_message_breaks_the_parser(data: st.DataObject) -> None:
    """Cut, repeat and replace pieces of a good message: it is read or refused, with an error of the family."""
    pieces = SPEC_EXAMPLE.split("\n")
    at = data.draw(st.integers(0, len(pieces) - 1))
    odd = st.sampled_from(["", "URI: http://[", "Issued At: 0001-01-01T00:00:00+23:59"])
    pieces[at] = data.draw(st.text(max_size=60) | odd)
    with contextlib.suppress(MalformedSignIn, SignInRefused):
        siwe.check(
            siwe.parse("\n".join(pieces)), domain="example.com", chain_id=1, max_age_s=10**12, now=datetime.now(UTC)
        )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"URI": "https://elsewhere.example"}, "this gateway is"),
        ({"URI": "http://[::1"}, "this gateway is"),
        ({"Chain ID": "1"}, "chain"),
        ({"Issued At": "2021-09-30T16:25:24Z"}, "issued"),
        ({"Issued At": "2221-09-30T16:25:24Z"}, "issued"),
        ({"Expiration Time": "2021-09-30T16:25:24Z"}, "expired"),
        ({"Not Before": "2221-09-30T16:25:24Z"}, "not valid yet"),
    ],
)
def test_a_message_for_elsewhere_or_another_time_is_refused(changes: dict[str, str], says: str) -> None:
    with pytest.raises(SignInRefused, match=says):
        siwe.check(
            siwe.parse(lines_of(**changes)), domain=DOMAIN, chain_id=CHAIN_ID, max_age_s=300, now=datetime.now(UTC)
        )


def test_a_message_for_here_and_now_is_taken() -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    message = lines_of(**{"Expiration Time": soon, "Not Before": "2021-09-30T16:25:24.123456+02:00", "Request ID": "7"})
    check_here(message)


# An ERC-1271 wallet: isValidSignature(hash, signature) answers the magic value when ecrecover gives its owner.
WALLET = (
    "600435600052" "60a43560f81c602052" "606435604052" "608435606052" "602060806080600060015afa50"
    "60805173{owner}14604d57" "60006000fd" "5b631626ba7e60e01b60005260206000f3"
)  # fmt: skip


def put_wallet(market: Market, owner: LocalAccount) -> str:
    """A contract wallet of the owner's, at an address of its own."""
    code = WALLET.format(owner=owner.address[2:].lower())
    code = code.replace("604d57", f"60{code.index('5b631626ba7e') // 2:02x}57")
    address = new_account().address
    rpc(market.chain, "hardhat_setCode", address, "0x" + code)
    return address


@pytest.fixture
def service(market: Market, tmp_path: Path) -> Iterator[SignInService]:
    store = Store(f"sqlite:///{tmp_path / 'gateway.db'}")
    yield SignInService(
        store,
        market.chain,
        gateway=market.gateway.address,
        session_key=market.session_account.address,
        domain=DOMAIN,
        key_days=30,
    )
    store.close()


def signed(service: SignInService, account: LocalAccount, session: str, address: str | None = None) -> tuple[str, str]:
    message = siwe.compose(
        domain=DOMAIN,
        uri=URI,
        address=address or account.address,
        chain_id=CHAIN_ID,
        nonce=service.new_nonce(),
        issued_at=datetime.now(UTC),
        statement="Sign in to DeCLAI",
        resources=(f"declai:session:{session}",),
    )
    return message, "0x" + sign_text(message, account).hex()


def test_a_wallet_gets_a_key_for_its_session(service: SignInService, market: Market) -> None:
    session = market.open_session()
    login = service.login(*signed(service, market.payer, session))
    assert login.api_key.startswith("dcl_")
    assert (login.session, login.payer) == (session, market.payer.address)
    assert login.expires_at <= market.session(session).ends_at
    assert service.session_of(login.api_key) == session
    for wrong in (login.api_key + "x", login.api_key[:-1], "dcl_", "sk-1", hash_key(login.api_key)):
        with pytest.raises(AuthenticationFailed):
            service.session_of(wrong)


def test_a_signed_message_signs_in_once(service: SignInService, market: Market) -> None:
    message, signature = signed(service, market.payer, market.open_session())
    service.login(message, signature)
    with pytest.raises(InvalidSignature, match="nonce"):
        service.login(message, signature)


def test_a_signature_by_another_wallet_is_refused(service: SignInService, market: Market) -> None:
    session = market.open_session()
    message, _ = signed(service, market.payer, session)
    with pytest.raises(InvalidSignature, match="not signed by"):
        service.login(message, "0x" + sign_text(message, new_account()).hex())
    for broken in ("", "0x", "0xzz", "0x00", "0x" + "ff" * 65):
        message, _ = signed(service, market.payer, session)
        with pytest.raises(InvalidSignature):
            service.login(message, broken)


def test_only_the_payer_of_a_session_with_this_gateways_key_gets_one(service: SignInService, market: Market) -> None:
    stranger = new_account()
    with pytest.raises(SessionUnusable, match="paid by"):
        service.login(*signed(service, stranger, market.open_session()))
    with pytest.raises(SessionUnusable, match="key"):
        service.login(*signed(service, market.payer, market.open_session(key=new_account())))
    with pytest.raises(SessionUnusable, match="not on chain"):
        service.login(*signed(service, market.payer, "0x" + "12" * 32))


def test_a_session_that_ended_is_refused(market: Market) -> None:
    session = market.open_session()
    ended = replace(market.session(session), ends_at=int(time.time()))
    with pytest.raises(SessionUnusable, match="has ended"):
        check_session(ended, session, gateway=market.gateway.address, key=None)


def test_a_contract_wallet_signs_in(service: SignInService, market: Market) -> None:
    owner = new_account()
    wallet = put_wallet(market, owner)
    amount, ledger = UNITS_PER_CREDIT, market.chain.ledger
    market.world.send(market.payer, ledger.transfer(wallet, amount))
    rpc(market.chain, "hardhat_setBalance", wallet, hex(10**18))
    rpc(market.chain, "hardhat_impersonateAccount", wallet)
    call = ledger.open_session(market.gateway.address, market.session_account.address, amount, 3600)
    sent = {"from": wallet, "to": call.to, "data": "0x" + call.data.hex()}
    receipt = market.chain.w3.eth.wait_for_transaction_receipt(market.chain.w3.eth.send_transaction(sent))  # type: ignore[arg-type]
    events = [ledger.decode(log) for log in receipt["logs"]]
    session = "0x" + next(event.values["session"] for event in events if event is not None).hex()
    login = service.login(*signed(service, owner, session, wallet))
    assert login.payer == wallet
    with pytest.raises(InvalidSignature, match="not signed by"):
        service.login(*signed(service, new_account(), session, wallet))
