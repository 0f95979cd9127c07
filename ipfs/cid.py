"""CIDv1 with sha2-256 (https://github.com/multiformats/cid): raw leaves and dag-pb nodes, base32 text."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from declai.ipfs.errors import InvalidCid

RAW, DAG_PB = 0x55, 0x70
DIGEST_BYTES = 32
_SHA2_256_PREFIX = bytes([0x12, DIGEST_BYTES])
TEXT_LENGTH = 59


@dataclass(frozen=True, order=True)
class Cid:
    """`codec` is RAW or DAG_PB; `digest` the sha2-256 of the block."""

    codec: int
    digest: bytes

    def __str__(self) -> str:
        return "b" + base64.b32encode(bytes(self)).decode().lower().rstrip("=")

    def __bytes__(self) -> bytes:
        return bytes([1, self.codec]) + _SHA2_256_PREFIX + self.digest

    @classmethod
    def of(cls, codec: int, block: bytes) -> Cid:
        """The CID of a block."""
        return cls(codec, hashlib.sha256(block).digest())

    @classmethod
    def parse(cls, text: str) -> Cid:
        """A CID from its base32 text. Raises InvalidCid."""
        if len(text) != TEXT_LENGTH or not text.startswith("b") or text != text.lower():
            raise InvalidCid(
                f"{text[:80]!r} is no CID: CIDv1, base32, sha2-256 is kept here ({TEXT_LENGTH} characters)"
            )
        try:
            cid = cls.from_bytes(base64.b32decode(text[1:].upper() + "=" * (-(TEXT_LENGTH - 1) % 8)))
        except ValueError:
            raise InvalidCid(f"{text!r} is not base32") from None
        if str(cid) != text:  # base32 has spare bits in its last character
            raise InvalidCid(f"{text!r} is not the canonical text of its CID")
        return cid

    @classmethod
    def from_bytes(cls, data: bytes) -> Cid:
        """A CID from its binary form. Raises InvalidCid."""
        if len(data) != 36 or data[0] != 1 or data[1] not in (RAW, DAG_PB) or data[2:4] != _SHA2_256_PREFIX:
            raise InvalidCid("only CIDv1 of raw or dag-pb blocks with sha2-256 is kept here")
        return cls(data[1], data[4:])
