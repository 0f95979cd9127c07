"""From a wallet's signature to an API key that is bound to one session, and back from the key to the session."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from eth_account.messages import encode_defunct
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from declai.api.errors import AuthenticationFailed, InvalidRequest, InvalidSignature, SessionUnusable
from declai.api.store.store import Store
from declai.chain.client import Chain
from declai.chain.contracts.ledger import SessionState
from declai.chain.errors import BadSignature
from declai.chain.messages import recover_text
from declai.protocol import siwe
from declai.protocol.errors import MalformedSignIn, SignInRefused

NONCE_TTL_S = 300
KEY_PREFIX = "dcl_"
SESSION_RESOURCE = re.compile(r"^declai:session:(0x[0-9a-f]{64})$")
# bytes4(keccak256("isValidSignature(bytes32,bytes)")), both ERC-1271's selector and its magic value.
ERC1271_MAGIC = bytes.fromhex("1626ba7e")


@dataclass(frozen=True)
class Login:
    """A new API key, shown once."""

    api_key: str
    session: str
    payer: str
    expires_at: float


class SignInService:
    """Sign-in for one gateway. Methods block (chain, store): call them in a thread."""

    def __init__(
        self, store: Store, chain: Chain, *, gateway: str, session_key: str, domain: str, key_days: int
    ) -> None:
        self._store = store
        self._chain = chain
        self._gateway = gateway
        self._session_key = session_key
        self._domain = domain
        self._key_ttl_s = key_days * 86_400

    def new_nonce(self) -> str:
        """A nonce for one sign-in within the next minutes."""
        nonce = secrets.token_hex(16)
        self._store.add_signin_nonce(nonce, time.time() + NONCE_TTL_S)
        return nonce

    def login(self, message: str, signature: str) -> Login:
        """Check a signed message and give out an API key for the session that it names.

        Raises:
            InvalidRequest: the message is malformed or names no session.
            InvalidSignature: not for here and now, a used nonce, or not signed by its address.
            SessionUnusable: the session is not the signer's, or not with this gateway's key.
        """
        signin = self._read(message)
        sessions = [found[1] for found in map(SESSION_RESOURCE.match, signin.resources) if found]
        if len(sessions) != 1:
            raise InvalidRequest("name one session in Resources, as declai:session:0x...", param="message")
        if not self._store.take_signin_nonce(signin.nonce):
            raise InvalidSignature("the nonce is unknown, used or too old: ask GET /v1/auth/nonce for another")
        payer = to_checksum_address(signin.address)
        self._check_signature(message, signature, payer)
        state = self._chain.ledger.session(bytes.fromhex(sessions[0][2:]))
        check_session(state, sessions[0], gateway=self._gateway, key=self._session_key)
        if state.payer != payer:
            raise SessionUnusable(f"session {sessions[0]} is paid by {state.payer}, not by {payer}")
        api_key = KEY_PREFIX + secrets.token_urlsafe(32)
        expires_at = min(time.time() + self._key_ttl_s, state.ends_at)
        self._store.add_api_key(hash_key(api_key), sessions[0], payer, expires_at)
        return Login(api_key, sessions[0], payer, expires_at)

    def session_of(self, api_key: str) -> str:
        """The session that a key spends. Raises AuthenticationFailed.

        The key is looked up by its hash: comparing takes no time that depends on how much of a guess is right.
        """
        found = self._store.api_key(hash_key(api_key)) if api_key.startswith(KEY_PREFIX) else None
        if found is None:
            raise AuthenticationFailed("unknown, expired or revoked API key: get one with `declai session login`")
        return found[0]

    def _read(self, message: str) -> siwe.SignIn:
        """Parse a message and hold it to this gateway, this chain and this moment."""
        domain, chain_id = self._domain, self._chain.deployment.chain_id
        try:
            signin = siwe.parse(message)
            siwe.check(signin, domain=domain, chain_id=chain_id, max_age_s=NONCE_TTL_S, now=datetime.now(UTC))
        except MalformedSignIn as error:
            raise InvalidRequest(str(error), param="message") from None
        except SignInRefused as error:
            raise InvalidSignature(str(error)) from None
        return signin

    def _check_signature(self, message: str, signature: str, address: str) -> None:
        if not re.fullmatch(r"0x([0-9a-fA-F]{2}){1,2048}", signature):
            raise InvalidSignature("the signature is not 0x-hex")
        raw = bytes.fromhex(signature[2:])
        try:
            if recover_text(message, raw) == address:
                return
        except BadSignature:
            pass
        if not self._contract_accepts(address, message, raw):
            raise InvalidSignature(f"the message is not signed by {address}")

    def _contract_accepts(self, address: str, message: str, signature: bytes) -> bool:
        """ERC-1271: ask the wallet's contract."""
        w3 = self._chain.w3
        checked = to_checksum_address(address)
        if not w3.eth.get_code(checked):
            return False
        signable = encode_defunct(text=message)
        hashed = keccak(b"\x19" + signable.version + signable.header + signable.body)
        data = ERC1271_MAGIC + w3.codec.encode(["bytes32", "bytes"], [hashed, signature])
        try:
            answer = bytes(w3.eth.call({"to": checked, "data": data, "gas": 1_000_000}))
        except Exception:  # a stranger's contract may fail in any way
            return False
        return answer == ERC1271_MAGIC.ljust(32, b"\0")


def hash_key(api_key: str) -> str:
    """What the store keeps of a key. Keys are random: no salt is needed."""
    return hashlib.sha256(api_key.encode()).hexdigest()


def check_session(state: SessionState, session: str, *, gateway: str, key: str | None) -> None:
    """Hold a session to this gateway, a key and this moment. Raises SessionUnusable."""
    if not state.exists:
        raise SessionUnusable(f"session {session} is not on chain: open one with `declai session open`")
    if state.gateway != gateway:
        raise SessionUnusable(f"session {session} is with gateway {state.gateway}, this one is {gateway}")
    if key is not None and state.key != key:
        raise SessionUnusable(f"session {session} has the key {state.key}, API keys need one whose key is {key}")
    if state.ends_at <= time.time():
        raise SessionUnusable(f"session {session} has ended: open another with `declai session open`")
