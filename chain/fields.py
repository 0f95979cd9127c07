"""Integers, bytes and addresses as contracts know them: bounded when parsed, exact in JSON.

In JSON bytes are 0x-hex and integers wider than 53 bits decimal strings, so that no reader rounds them. Each type
carries the Solidity type that it stands for, from which `chain.messages` derives type strings and encodings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from eth_utils.address import is_checksum_formatted_address, to_checksum_address
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

# Number formats that stages compute in, as offers number them. The registry takes others too.
NUMERIC_PROFILES = {"fp32": 0, "bf16": 1, "fp16": 2, "int8": 3, "int4": 4}


@dataclass(frozen=True)
class SolidityType:
    """The name of the contract's type of a field."""

    name: str


def _integer(value: Any) -> Any:
    # Only what JSON needs: decimal text. No signs, no spaces, no underscores, no floats.
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 78):
            raise ValueError(f"{value[:80]!r} is not a decimal integer")
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not an integer")
    return value


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        if not value.startswith("0x"):
            raise ValueError("bytes are written as 0x-hex")
        return bytes.fromhex(value[2:])
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def _address(value: str) -> str:
    checksummed = to_checksum_address(value)
    if is_checksum_formatted_address(value) and value != checksummed:
        raise ValueError(f"{value} has a wrong checksum: is it mistyped?")
    return checksummed


def to_hex(value: bytes) -> str:
    """0x-hex of bytes."""
    return "0x" + value.hex()


Uint8 = Annotated[int, SolidityType("uint8"), BeforeValidator(_integer), Field(ge=0, lt=2**8)]
Uint16 = Annotated[int, SolidityType("uint16"), BeforeValidator(_integer), Field(ge=0, lt=2**16)]
Uint32 = Annotated[int, SolidityType("uint32"), BeforeValidator(_integer), Field(ge=0, lt=2**32)]
Uint64 = Annotated[int, SolidityType("uint64"), BeforeValidator(_integer), Field(ge=0, lt=2**64)]
Uint128 = Annotated[
    int,
    SolidityType("uint128"),
    BeforeValidator(_integer),
    Field(ge=0, lt=2**128),
    PlainSerializer(str, return_type=str, when_used="json"),
]
Bytes32 = Annotated[
    bytes,
    SolidityType("bytes32"),
    BeforeValidator(_bytes),
    Field(min_length=32, max_length=32),
    PlainSerializer(to_hex, return_type=str, when_used="json"),
]
Address = Annotated[str, SolidityType("address"), Field(pattern=r"^0x[0-9a-fA-F]{40}$"), AfterValidator(_address)]
Signature = Annotated[
    bytes,
    BeforeValidator(_bytes),
    Field(min_length=65, max_length=65),
    PlainSerializer(to_hex, return_type=str, when_used="json"),
]
