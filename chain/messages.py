"""The signed messages of the protocol: types, EIP-712 digests, signatures.

The Solidity structs of contracts/src/libraries/Messages.sol are the same types; golden-vector tests hold both sides to
eth-account's own EIP-712 encoder. Hashing is by hand because it is on every request's way: all members are static or
a struct, so `encodeData` is one 32-byte word a member.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from eth_account import Account
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount
from eth_keys import datatypes
from eth_keys.exceptions import BadSignature as KeysBadSignature
from eth_typing import Hash32
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError as KeysValidationError
from pydantic import BaseModel, ConfigDict

from declai.chain.errors import BadSignature
from declai.chain.fields import Address, Bytes32, SolidityType, Uint8, Uint16, Uint32, Uint64, Uint128

# Order of the secp256k1 group; signatures with s above its half have a twin and are refused (EIP-2).
SECP256K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
DOMAIN_TYPE = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
DOMAIN_NAME, DOMAIN_VERSION = "DeCLAI", "1"


class Domain(BaseModel):
    """What binds a signature to one deployment: its chain and its InferenceLedger."""

    model_config = ConfigDict(frozen=True)

    chain_id: int
    ledger: Address

    @functools.cached_property
    def separator(self) -> bytes:
        """EIP-712 domain separator."""
        parts = (keccak(text=DOMAIN_TYPE), keccak(text=DOMAIN_NAME), keccak(text=DOMAIN_VERSION))
        return keccak(b"".join(parts) + _word(self.chain_id) + _word(self.ledger))

    def typed_data(self) -> dict[str, Any]:
        """The domain as wallets expect it in `eth_signTypedData_v4`."""
        return {
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": self.chain_id,
            "verifyingContract": self.ledger,
        }


def _word(value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return value.to_bytes(32, "big")
    return value if isinstance(value, bytes) else bytes.fromhex(value[2:]).rjust(32, b"\0")


class SignedMessage(BaseModel):
    """Base of the signed messages; fields stand in the order of the Solidity struct."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type_name: ClassVar[str]

    @classmethod
    @functools.cache
    def members(cls) -> tuple[tuple[str, str, str], ...]:
        """(Python name, Solidity name, Solidity type) of each member."""
        return tuple((name, _camel(name), _solidity_type(field.metadata)) for name, field in cls.model_fields.items())

    @classmethod
    def encode_type(cls) -> str:
        """EIP-712's encodeType, without the structs that it refers to."""
        members = ",".join(f"{kind} {name}" for _, name, kind in cls.members())
        return f"{cls.type_name}({members})"

    @classmethod
    @functools.cache
    def type_hash(cls) -> bytes:
        """keccak256 of EIP-712's encodeType."""
        return keccak(text=cls.encode_type())

    def struct_hash(self) -> bytes:
        """EIP-712 hashStruct."""
        return keccak(self.type_hash() + b"".join(_word(getattr(self, name)) for name, _, _ in self.members()))

    def as_struct(self) -> tuple[Any, ...]:
        """The values in the order of the Solidity struct, for contract calls."""
        return tuple(getattr(self, name) for name, _, _ in self.members())

    def typed_data(self, domain: Domain) -> dict[str, Any]:
        """The message as wallets expect it in `eth_signTypedData_v4`."""
        members = self.members()
        return {
            "types": {self.type_name: [{"name": name, "type": kind} for _, name, kind in members]},
            "domain": domain.typed_data(),
            "primaryType": self.type_name,
            "message": {name: getattr(self, attribute) for attribute, name, _ in members},
        }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _solidity_type(metadata: list[Any]) -> str:
    return next(item.name for item in metadata if isinstance(item, SolidityType))


class Work(SignedMessage):
    """What a request asks for. `body` is a salted hash of the canonical HTTP body, `deadline` Unix seconds."""

    type_name = "Work"

    model: Bytes32
    body: Bytes32
    max_tokens: Uint32
    tier: Uint8
    deadline: Uint64


class InferenceRequest(SignedMessage):
    """A requester's word, signed by the session key.

    Flat in Python and in JSON; signed, what it asks for stands in a struct of its own (`Work`), of which a settlement
    shows the hash alone.
    """

    type_name = "InferenceRequest"

    session: Bytes32
    nonce: Uint64
    model: Bytes32
    body: Bytes32
    max_tokens: Uint32
    tier: Uint8
    max_cost: Uint128
    acked_below: Uint64
    spent: Uint128
    deadline: Uint64

    @property
    def work(self) -> Work:
        return Work(**{name: getattr(self, name) for name in Work.model_fields})

    @classmethod
    @functools.cache
    def members(cls) -> tuple[tuple[str, str, str], ...]:
        own = [member for member in super().members() if member[0] not in Work.model_fields]
        return (*own, ("work", "work", Work.type_name))

    @classmethod
    @functools.cache
    def type_hash(cls) -> bytes:
        return keccak(text=cls.encode_type() + Work.encode_type())

    def struct_hash(self) -> bytes:
        own = b"".join(_word(getattr(self, name)) for name, _, _ in self.members()[:-1])
        return keccak(self.type_hash() + own + self.work.struct_hash())

    def as_struct(self) -> tuple[Any, ...]:
        return (*(getattr(self, name) for name, _, _ in self.members()[:-1]), self.work.as_struct())

    def typed_data(self, domain: Domain) -> dict[str, Any]:
        data, work = super().typed_data(domain), self.work.typed_data(domain)
        data["types"] |= work["types"]
        data["message"]["work"] = work["message"]
        return data


class Assignment(SignedMessage):
    """A gateway's order for one stage of one request, signed by the gateway's signer.

    `shard` names the weights (`Manifest.shard_root`), `numeric_profile` the format to compute in (`NUMERIC_PROFILES`);
    `deadline` is Unix seconds.
    """

    type_name = "Assignment"

    request: Bytes32
    stage: Uint8
    first_layer: Uint16
    end_layer: Uint16
    numeric_profile: Uint8
    shard: Bytes32
    node: Address
    prompt_price: Uint128
    output_price: Uint128
    attempt: Uint32
    deadline: Uint64


class InferenceReceipt(SignedMessage):
    """What a node did for an assignment, signed by the node's signer. Times in Unix seconds, cost in base units."""

    type_name = "InferenceReceipt"

    assignment: Bytes32
    node: Address
    prompt_tokens: Uint32
    output_tokens: Uint32
    inputs: Bytes32
    outputs: Bytes32
    cost: Uint128
    started_at: Uint64
    finished_at: Uint64


class Acceptance(SignedMessage):
    """A gateway's word, by its signer, that a receipt (its digest) is true and that it owes what the receipt costs."""

    type_name = "Acceptance"

    receipt: Bytes32


class SessionClose(SignedMessage):
    """Consent of payer and gateway to close a session at once, at exactly this settled total."""

    type_name = "SessionClose"

    session: Bytes32
    settled: Uint128
    deadline: Uint64


def digest(message: SignedMessage, domain: Domain) -> bytes:
    """The 32 bytes that are signed: keccak256(0x1901 || domain separator || struct hash), EIP-712."""
    return keccak(b"\x19\x01" + domain.separator + message.struct_hash())


def sign(message: SignedMessage, domain: Domain, key: LocalAccount) -> bytes:
    """65 bytes r || s || v, low s, v 27 or 28."""
    return bytes(key.unsafe_sign_hash(Hash32(digest(message, domain))).signature)


def recover(message: SignedMessage, domain: Domain, signature: bytes) -> str:
    """Checksummed address of who signed.

    Raises:
        BadSignature: not 65 bytes, v not 27 or 28, s in the upper half, or no point on the curve.
    """
    return recover_digest(digest(message, domain), signature)


def signed_by(message: SignedMessage, domain: Domain, signature: bytes, signer: str | None) -> bool:
    """Whether a signature is well formed and by `signer`; nothing is by nobody."""
    try:
        return signer is not None and recover(message, domain, signature) == to_checksum_address(signer)
    except BadSignature:
        return False


def recover_digest(hashed: bytes, signature: bytes) -> str:
    """Like `recover`, for a digest."""
    if len(signature) != 65:
        raise BadSignature(f"a signature has 65 bytes, this one {len(signature)}")
    s, v = int.from_bytes(signature[32:64], "big"), signature[64]
    if v not in (27, 28):
        raise BadSignature(f"v is 27 or 28, not {v}")
    if s > SECP256K1_N // 2:
        raise BadSignature("s is in the upper half: the signature is malleable")
    try:
        public_key = datatypes.Signature(signature[:64] + bytes([v - 27])).recover_public_key_from_msg_hash(hashed)
    except (KeysBadSignature, KeysValidationError, ValueError) as error:
        raise BadSignature("the signature fits no key") from error
    return public_key.to_checksum_address()


def sign_text(text: str, key: LocalAccount) -> bytes:
    """EIP-191 personal signature of a text: 65 bytes r || s || v."""
    return bytes(key.sign_message(encode_defunct(text=text)).signature)


def recover_text(text: str, signature: bytes) -> str:
    """Checksummed address of who signed a text (EIP-191).

    Raises:
        BadSignature: as for `recover`.
    """
    body = text.encode()
    return recover_digest(keccak(b"\x19Ethereum Signed Message:\n%d" % len(body) + body), signature)


def compact_signature(signature: bytes) -> tuple[bytes, bytes]:
    """(r, vs) of a 65-byte signature: EIP-2098, as the ledger's claims take it."""
    parity = (signature[64] - 27) << 255
    return signature[:32], (int.from_bytes(signature[32:64], "big") | parity).to_bytes(32, "big")


def new_account() -> LocalAccount:
    """A fresh key from the system's randomness."""
    account: LocalAccount = Account.create()
    return account
