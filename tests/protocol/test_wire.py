"""Frames survive the wire; nothing else gets through it."""

from __future__ import annotations

import struct

import msgpack
import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from declai.protocol import wire
from declai.protocol.errors import MalformedFrame, OtherWireVersion

job_ids = st.binary(min_size=32, max_size=32)
u32 = st.integers(0, 2**32 - 1)


@st.composite
def prompts(draw: st.DrawFn) -> wire.Prompt:
    n = draw(st.integers(1, 50))
    return wire.Prompt(draw(job_ids), n, draw(st.binary(min_size=4 * n, max_size=4 * n)))


@st.composite
def hiddens(draw: st.DrawFn) -> wire.Hidden:
    n, width = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    dtype = draw(st.sampled_from(list(wire.ITEM_BYTES)))
    size = n * width * wire.ITEM_BYTES[dtype]
    return wire.Hidden(draw(job_ids), draw(u32), n, dtype, draw(st.binary(min_size=size, max_size=size)))


addresses = st.binary(min_size=20, max_size=20).map(to_checksum_address)
reports = st.builds(wire.LinkReport, addresses, st.floats(0, 3600, width=32), st.none() | st.floats(1, 2**39, width=32))


@st.composite
def heartbeats(draw: st.DrawFn) -> wire.Heartbeat:
    first = draw(st.integers(0, 1000))
    speed = draw(st.floats(0, 3600))
    return wire.Heartbeat(
        draw(job_ids),
        "bafy",
        first,
        first + draw(st.integers(1, 99)),
        draw(u32),
        draw(u32),
        speed,
        draw(st.booleans()),
        links=wire.pack_reports(draw(st.lists(reports, max_size=wire.MAX_LINK_REPORTS))),
    )


reasons = st.sampled_from(["stop", "length", "cancelled"])
logprobs = st.floats(max_value=0, allow_infinity=False)
likeliest = st.lists(st.tuples(u32, logprobs), max_size=wire.MAX_TOP_LOGPROBS).map(tuple)
tokens = st.builds(wire.Token, job_ids, u32, u32, u32, st.none() | reasons, st.none() | logprobs, likeliest)
finishes = st.builds(wire.Finish, job_ids, reasons, st.integers(0, wire.MAX_TOKENS))
texts = st.text(st.characters(codec="utf-8"), max_size=400)
codes = st.from_regex(r"\A[a-z][a-z0-9_]{0,39}\Z")
failures = st.builds(wire.Failed, job_ids, codes, texts, st.none() | addresses)
receipts = st.builds(
    wire.Receipt,
    job_ids,
    texts,
    st.binary(min_size=65, max_size=65),
    st.integers(0, 4).map(lambda n: bytes(254 * n)),
)
signatures = st.binary(min_size=65, max_size=65)
acks = st.builds(wire.ReceiptAck, job_ids, signatures)
ids = st.integers(0, 2**64 - 1)
probes = st.builds(wire.Ping, ids) | st.builds(wire.Pong, ids)
bare = st.builds(wire.Ready, job_ids) | st.builds(wire.Cancel, job_ids) | acks
relayed = st.builds(wire.Relayed, job_ids, job_ids, st.binary(max_size=99), st.integers(0, 2**64 - 1))
listening = st.builds(wire.Listening, st.integers(0, 2**64 - 1))
extras = bare | probes | relayed | listening
frames = prompts() | hiddens() | tokens | finishes | failures | receipts | heartbeats() | extras


@given(frames)
def test_what_is_sent_is_what_arrives(frame: wire.Frame) -> None:
    header, payload = wire.encode(frame)
    assert len(header) <= wire.MAX_HEADER_BYTES
    assert wire.decode([bytes(header), bytes(payload)]) == frame


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_arbitrary_bytes_are_malformed_and_nothing_worse(parts: list[bytes]) -> None:
    with pytest.raises(MalformedFrame):
        wire.decode(parts)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    frames,
    st.dictionaries(st.sampled_from([*"abc", "job", "kind", "v", "index", "payload", "self"]), values),
    st.data(),
)
def test_a_tampered_header_is_a_frame_or_malformed(
    frame: wire.Frame, changes: dict[str, object], data: st.DataObject
) -> None:
    header, payload = wire.encode(frame)
    fields = msgpack.unpackb(header) | changes
    try:
        packed = msgpack.packb(fields)
    except (ValueError, TypeError, OverflowError):
        return
    flipped = bytearray(packed)
    if data.draw(st.booleans()):
        flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decoded = wire.decode([bytes(flipped), payload])
    except MalformedFrame:
        return
    assert wire.decode(wire.encode(decoded)) == decoded


def test_the_payload_is_a_view_of_what_arrived() -> None:
    header, _ = wire.encode(wire.Hidden(bytes(32), 0, 1, "float32", bytes(8)))
    received = bytearray(8)
    frame = wire.decode([header, memoryview(received)])
    assert isinstance(frame, wire.Hidden)
    received[0] = 7
    assert frame.payload[0] == 7


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (wire.Ready, {"job": bytes(31)}),
        (wire.Token, {"job": bytes(32), "index": -1, "position": 0, "token_id": 0}),
        (wire.Token, {"job": bytes(32), "index": 0, "position": 0, "token_id": True}),
        (wire.Token, {"job": bytes(32), "index": 0, "position": 0, "token_id": 0, "logprob": float("nan")}),
        *(
            (wire.Token, {"job": bytes(32), "index": 0, "position": 0, "token_id": 0, "top_logprobs": value})
            for value in ([[1, 0.5]], [[1, float("-inf")]], [[-1, -1.0]], [[1]], [1], {"1": -1.0}, [[1, -1.0]] * 21)
        ),
        (wire.Finish, {"job": bytes(32), "finish_reason": "because", "num_output_tokens": 1}),
        (wire.Failed, {"job": bytes(32), "code": "No Spaces"}),
        (wire.Failed, {"job": bytes(32), "code": "peer_lost", "blamed": "0x12"}),
        (wire.ReceiptAck, {"job": bytes(32)}),
        (wire.ReceiptAck, {"job": bytes(32), "acceptance": bytes(64)}),
    ],
)
def test_fields_out_of_bounds_are_malformed(cls: type, fields: dict[str, object]) -> None:
    with pytest.raises(MalformedFrame):
        wire.decode([msgpack.packb({"v": wire.VERSION, "kind": cls.kind, **fields}), b""])


@pytest.mark.parametrize("version", [0, 1, wire.VERSION + 1, 2**63])
def test_a_frame_of_another_version_says_so(version: int) -> None:
    header = {"v": version, "kind": "ready", "job": bytes(32), "of": "a field that this program does not know"}
    with pytest.raises(OtherWireVersion, match=f"version {version} .* this program {wire.VERSION}: install"):
        wire.decode([msgpack.packb(header), b""])


@pytest.mark.parametrize("version", [None, True, "2", 2.0, b"2"])
def test_what_is_no_version_is_malformed(version: object) -> None:
    with pytest.raises(MalformedFrame, match="no version"):
        wire.decode([msgpack.packb({"v": version, "kind": "ready", "job": bytes(32)}), b""])


def test_oversized_parts_are_malformed() -> None:
    header, _ = wire.encode(wire.Ready(bytes(32)))
    for parts in ([bytes(wire.MAX_HEADER_BYTES + 1), b""], [header, bytes(1)], [header], [header, b"", b""]):
        with pytest.raises(MalformedFrame):
            wire.decode(parts)


@given(st.lists(reports, max_size=wire.MAX_LINK_REPORTS))
def test_link_reports_come_back_as_they_were(given_reports: list[wire.LinkReport]) -> None:
    assert wire.unpack_reports(wire.pack_reports(given_reports)) == given_reports


@pytest.mark.parametrize(
    "links",
    [
        bytes(27),
        bytes(28 * (wire.MAX_LINK_REPORTS + 1)),
        bytes(20) + struct.pack("<ff", -1.0, 1.0),
        bytes(20) + struct.pack("<ff", float("nan"), 1.0),
        bytes(20) + struct.pack("<ff", 1.0, float("nan")),
        bytes(20) + struct.pack("<ff", 1.0, float("inf")),
        bytes(20) + struct.pack("<ff", 3601.0, 1.0),
    ],
)
def test_a_heartbeat_with_impossible_links_is_malformed(links: bytes) -> None:
    header = {
        "v": wire.VERSION,
        "kind": "heartbeat",
        "model": bytes(32),
        "manifest_cid": "x",
        "first_layer": 0,
        "end_layer": 1,
    }
    header |= {"jobs_running": 0, "capacity": 1, "seconds_per_token_layer": 0.0, "links": links}
    with pytest.raises(MalformedFrame):
        wire.decode([msgpack.packb(header), b""])
