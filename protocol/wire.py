"""The frames that travel over links: one frozen dataclass per kind, with bounds; msgpack header, raw payload.

A frame is two parts of a message, `[header, payload]`; a message has one to 64 frames. The header is a msgpack map
`{v, kind, **fields}` of at most 4 KiB; the payload is raw bytes and empty for most kinds. Payloads are never copied:
`encode` hands out the caller's buffer and `decode` keeps a view of the received one.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import msgpack
from eth_utils.address import to_checksum_address
from pydantic import ConfigDict, Field, SkipValidation
from pydantic.dataclasses import dataclass

from declai.chain.fields import Address
from declai.protocol.errors import MalformedFrame, OtherWireVersion

# Rises with every change of a frame. Nodes tell theirs when they join; a frame of another version is never guessed at.
VERSION = 2
MAX_HEADER_BYTES = 4096
MAX_PAYLOAD_BYTES = 64 * 2**20
MAX_MESSAGE_FRAMES = 64
MAX_TOKENS = 2**20
MAX_TOP_LOGPROBS = 20
RECORD_BYTES = 254
JOB_ID_BYTES = 32
SIGNATURE_BYTES = 65
MAX_RTT_S = 3600.0
MAX_SECONDS_PER_TOKEN_LAYER = 3600.0
MAX_BYTES_PER_S = 1e12
LINK_KEY_BYTES = 32

Buffer: TypeAlias = bytes | memoryview
Dtype = Literal["float32", "bfloat16", "float16"]
# How rows of hidden states travel (see `protocol.rows`), and what a gateway may allow for those of a prompt.
RowFormat = Literal["float32", "bfloat16", "float16", "int8"]
PromptFormat = Literal["profile", "float16", "int8"]
FinishReason = Literal["stop", "length", "cancelled"]
ITEM_BYTES: dict[RowFormat, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

JobId = Annotated[bytes, Field(min_length=JOB_ID_BYTES, max_length=JOB_ID_BYTES)]
SignatureBytes = Annotated[bytes, Field(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
LinkKey = Annotated[bytes, Field(min_length=LINK_KEY_BYTES, max_length=LINK_KEY_BYTES)]
U32 = Annotated[int, Field(ge=0, lt=2**32)]
LogProb = Annotated[float, Field(le=0.0, allow_inf_nan=False)]
U64 = Annotated[int, Field(ge=0, lt=2**64)]
TokenCount = Annotated[int, Field(ge=1, le=MAX_TOKENS)]
Payload = Annotated[Buffer, SkipValidation]


def _size(payload: Buffer) -> int:
    return memoryview(payload).nbytes  # len() counts items, which are not bytes in every view


_STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)


@dataclass(frozen=True, config=_STRICT)
class Ready:
    """Stage to its upstream (stage 0: to the gateway): this stage and all after it can take data.

    To the last stage, stage 0 says so where it took another's place: it has the prompt, and needs the tokens.
    """

    kind: ClassVar[str] = "ready"
    job: JobId


@dataclass(frozen=True, config=_STRICT)
class Prompt:
    """Gateway to stage 0. Payload: `num_tokens` token ids, u32 little-endian."""

    kind: ClassVar[str] = "prompt"
    job: JobId
    num_tokens: TokenCount
    payload: Payload

    def __post_init__(self) -> None:
        if (size := _size(self.payload)) != 4 * self.num_tokens:
            raise ValueError(f"{size} payload bytes are not {self.num_tokens} token ids")


@dataclass(frozen=True, config=_STRICT)
class Hidden:
    """Stage k to k+1. Payload: hidden states of `num_tokens` consecutive positions, row-major, one row per position."""

    kind: ClassVar[str] = "hidden"
    job: JobId
    first_position: U32
    num_tokens: TokenCount
    dtype: RowFormat
    payload: Payload

    def __post_init__(self) -> None:
        size = _size(self.payload)
        if not size or size % (self.num_tokens * ITEM_BYTES[self.dtype]):
            raise ValueError(f"{size} payload bytes are not {self.num_tokens} rows of {self.dtype}")


@dataclass(frozen=True, config=_STRICT)
class Token:
    """Last stage to stage 0 and to the gateway: output token `index`, at `position` = prompt length + index.

    `top_logprobs`: (token id, log probability) of the most likely tokens, for the gateway alone.
    """

    kind: ClassVar[str] = "token"
    job: JobId
    index: U32
    position: U32
    token_id: U32
    finish_reason: FinishReason | None = None
    logprob: LogProb | None = None
    top_logprobs: Annotated[tuple[tuple[U32, LogProb], ...], Field(max_length=MAX_TOP_LOGPROBS)] = ()


@dataclass(frozen=True, config=_STRICT)
class Finish:
    """The end as the last stage decided it: last -> gateway, last -> stage 0 -> 1 -> ...; all sign these counts."""

    kind: ClassVar[str] = "finish"
    job: JobId
    finish_reason: FinishReason
    num_output_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)]


@dataclass(frozen=True, config=_STRICT)
class Cancel:
    """Gateway to the last stage: make no more tokens. To another stage: end the job without a receipt."""

    kind: ClassVar[str] = "cancel"
    job: JobId


@dataclass(frozen=True, config=_STRICT)
class Failed:
    """Any stage to the gateway and its neighbours: the job is over, nothing is charged. `code`: a
    `failures.FailureCode`, or one that only a newer program knows.

    With the code `replaced`, which is the gateway's alone, it is over for the receiver, who tells nobody.
    `blamed`: who spoiled the job, where the sender knows that it was another: the neighbour that it lost, that takes
    nothing more, or that said so itself. Never whom a neighbour blames.
    """

    kind: ClassVar[str] = "failed"
    job: JobId
    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    message: Annotated[str, Field(max_length=400)] = ""
    blamed: Address | None = None


@dataclass(frozen=True, config=_STRICT)
class Replaced:
    """Gateway to the stages beside: another node stands in a place of the ring now. `replacement`: what is signed, the
    JSON of `ring.Replacement`; `signature`: EIP-191, of the gateway's signer."""

    kind: ClassVar[str] = "replaced"
    job: JobId
    replacement: Annotated[str, Field(max_length=2048)]
    signature: SignatureBytes


@dataclass(frozen=True, config=_STRICT)
class Receipt:
    """Stage to gateway until acknowledged. `receipt`: canonical JSON of InferenceReceipt. Payload: chunk records."""

    kind: ClassVar[str] = "receipt"
    job: JobId
    receipt: Annotated[str, Field(max_length=2048)]
    signature: SignatureBytes
    payload: Payload

    def __post_init__(self) -> None:
        if (size := _size(self.payload)) % RECORD_BYTES:
            raise ValueError(f"{size} payload bytes are no whole number of {RECORD_BYTES}-byte records")


@dataclass(frozen=True, config=_STRICT)
class ReceiptAck:
    """Gateway to stage: the receipt is stored for good. `acceptance`: its signer's word on that (EIP-712)."""

    kind: ClassVar[str] = "receipt_ack"
    job: JobId
    acceptance: SignatureBytes


@dataclass(frozen=True, config=_STRICT)
class Ping:
    """To a neighbour in a running job: answer at once. Answered seldom, and to neighbours alone."""

    kind: ClassVar[str] = "ping"
    id: Annotated[int, Field(ge=0, lt=2**64)]


@dataclass(frozen=True, config=_STRICT)
class Pong:
    """The answer to the ping of this id."""

    kind: ClassVar[str] = "pong"
    id: Annotated[int, Field(ge=0, lt=2**64)]


@dataclasses.dataclass(frozen=True)
class LinkReport:
    """What a node measured of its link to another: the round trip, and the bandwidth toward it where known."""

    address: str
    rtt_s: float
    bytes_per_s: float | None


_REPORT = struct.Struct("<20sff")
MAX_LINK_REPORTS = 32
# A checksum takes tens of microseconds, and every heartbeat names the same few nodes.
_checksummed = functools.lru_cache(2**14)(to_checksum_address)


def pack_reports(reports: Sequence[LinkReport]) -> bytes:
    """At most MAX_LINK_REPORTS of them, for a heartbeat."""
    return b"".join(
        _REPORT.pack(
            bytes.fromhex(report.address[2:]),
            min(report.rtt_s, MAX_RTT_S),
            min(report.bytes_per_s or 0.0, MAX_BYTES_PER_S),
        )
        for report in reports
    )


def unpack_reports(data: bytes) -> list[LinkReport]:
    """Raises ValueError for what `pack_reports` does not make."""
    if len(data) % _REPORT.size:
        raise ValueError(f"{len(data)} bytes are no whole number of reports")
    reports = []
    for address, rtt_s, bytes_per_s in _REPORT.iter_unpack(data):
        if not (0 <= rtt_s <= MAX_RTT_S and 0 <= bytes_per_s <= MAX_BYTES_PER_S):  # False for a NaN, too
            raise ValueError(f"a round trip of {rtt_s} s at {bytes_per_s} bytes/s")
        reports.append(LinkReport(_checksummed(address), rtt_s, bytes_per_s or None))
    return reports


@dataclass(frozen=True, config=_STRICT)
class Heartbeat:
    """Node to gateway, every two seconds: what it serves and how busy it is. `model` is the 32-byte model id.

    `links`: what it measured, as `pack_reports` makes it.
    """

    kind: ClassVar[str] = "heartbeat"
    model: Annotated[bytes, Field(min_length=32, max_length=32)]
    manifest_cid: Annotated[str, Field(min_length=1, max_length=128)]
    first_layer: Annotated[int, Field(ge=0, lt=2**16)]
    end_layer: Annotated[int, Field(ge=1, lt=2**16)]
    jobs_running: U32
    capacity: U32
    seconds_per_token_layer: Annotated[float, Field(ge=0.0, le=MAX_SECONDS_PER_TOKEN_LAYER, allow_inf_nan=False)]
    draining: bool = False
    numeric_profile: Annotated[int, Field(ge=0, lt=2**8)] = 0
    links: Annotated[bytes, Field(max_length=_REPORT.size * MAX_LINK_REPORTS)] = b""

    def __post_init__(self) -> None:
        unpack_reports(self.links)
        if self.first_layer >= self.end_layer:
            raise ValueError(f"layers [{self.first_layer}, {self.end_layer}) are empty")


@dataclass(frozen=True, config=_STRICT)
class Relayed:
    """A frame on its way through a gateway. Payload: the frame, sealed between two link keys (`links.seals`).

    To the gateway, `peer` is who shall have it; from the gateway, who sealed it, and `ticket` is what a node says next.
    """

    kind: ClassVar[str] = "relayed"
    job: JobId
    peer: LinkKey
    payload: Payload
    ticket: U64 = 0


@dataclass(frozen=True, config=_STRICT)
class Listening:
    """Relayed node to gateway: frames for me go over this connection. All up to `ticket` are here (0: none yet)."""

    kind: ClassVar[str] = "listening"
    ticket: U64 = 0


JobFrame: TypeAlias = Ready | Prompt | Hidden | Token | Finish | Cancel | Failed | Replaced | Receipt | ReceiptAck
Frame: TypeAlias = JobFrame | Heartbeat | Ping | Pong | Relayed | Listening

_FRAMES: dict[str, type[Any]] = {frame.kind: frame for frame in get_args(Frame)}
_FIELDS = {frame: [f.name for f in dataclasses.fields(frame) if f.name != "payload"] for frame in _FRAMES.values()}
_WITH_PAYLOAD = {frame for frame in _FRAMES.values() if "payload" in {f.name for f in dataclasses.fields(frame)}}


def encode(frame: Frame) -> list[Buffer]:
    """`[header, payload]` of a frame. The payload is the frame's own buffer: leave it alone until it is sent."""
    cls = type(frame)
    header = msgpack.packb({"v": VERSION, "kind": frame.kind} | {name: getattr(frame, name) for name in _FIELDS[cls]})
    return [header, getattr(frame, "payload", b"")]


def decode(parts: Sequence[Buffer]) -> Frame:
    """The frame that two message parts hold; its payload is a view of the second part.

    Raises:
        MalformedFrame: whatever is wrong with the bytes, and nothing else. OtherWireVersion is one.
    """
    if len(parts) != 2:
        raise MalformedFrame(f"a message has a header and a payload, not {len(parts)} parts")
    header, payload = memoryview(parts[0]), memoryview(parts[1])
    if header.nbytes > MAX_HEADER_BYTES or payload.nbytes > MAX_PAYLOAD_BYTES:
        raise MalformedFrame(f"header of {header.nbytes} or payload of {payload.nbytes} bytes is over the limit")
    fields = _unpack(header)
    version = fields.pop("v", None)
    if type(version) is int and version != VERSION:
        raise OtherWireVersion(version, VERSION)
    cls = _FRAMES.get(kind) if isinstance(kind := fields.pop("kind", None), str) else None
    if type(version) is not int or cls is None:
        raise MalformedFrame("no version, or an unknown kind")
    if cls in _WITH_PAYLOAD:
        fields["payload"] = payload
    elif payload.nbytes:
        raise MalformedFrame(f"a {cls.kind} frame has no payload")
    try:
        frame: Frame = cls(**fields)
    except (ValueError, TypeError) as error:  # pydantic's ValidationError is a ValueError
        raise MalformedFrame(f"bad {cls.kind} frame") from error
    return frame


def _unpack(header: memoryview) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(header, raw=False, strict_map_key=True, use_list=False)
    except Exception as error:  # the parser raises several unrelated classes on hostile bytes
        raise MalformedFrame("the header is not msgpack") from error
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise MalformedFrame("the header is not a map of names")
    if "payload" in fields:
        raise MalformedFrame("the payload does not belong in the header")
    return fields
