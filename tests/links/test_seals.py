"""Seals: only the receiver reads them, only the sender makes them, and nobody has them opened twice."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from declai.links import seals as seals_module
from declai.links.errors import LinkError
from declai.links.seals import OVERHEAD_BYTES, Seals
from declai.protocol import wire
from declai.protocol.errors import ForgedFrame, MalformedFrame, RepeatedFrame
from tests.support.parties import curve_pair

JOB, OTHER_JOB = b"j" * 32, b"o" * 32
RELAY, OTHER_RELAY = b"r" * 32, b"q" * 32


class Pair:
    """Two nodes. `carry` is what an honest gateway does: it names the sender in place of the receiver."""

    def __init__(self) -> None:
        self.keys_a, self.keys_b = curve_pair(), curve_pair()
        self.a, self.b = Seals(*self.keys_a), Seals(*self.keys_b)

    def seal(self, frame: wire.Frame) -> wire.Relayed:
        return self.carry(self.a.seal(RELAY, self.keys_b[0], frame))

    def carry(self, sealed: wire.Relayed) -> wire.Relayed:
        parts = wire.encode(replace(sealed, peer=self.keys_a[0], ticket=7))
        carried = wire.decode([bytes(part) for part in parts])
        assert isinstance(carried, wire.Relayed)
        return carried


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_a_sealed_frame_is_opened_by_its_receiver_and_hides_what_it_holds(pair: Pair) -> None:
    secret = b"hidden states!!!" * 64
    frame = wire.Hidden(JOB, 5, 4, "float32", secret)
    sealed = pair.seal(frame)
    assert secret[:16] not in bytes(sealed.payload)
    assert pair.b.open(RELAY, sealed) == frame
    assert pair.b.open(RELAY, pair.seal(wire.Ready(JOB))) == wire.Ready(JOB)
    with pytest.raises(ForgedFrame):
        Seals(*curve_pair()).open(RELAY, sealed)


def test_equal_frames_are_sealed_differently(pair: Pair) -> None:
    again = Seals(*pair.keys_a)
    sealed = [s.seal(RELAY, pair.keys_b[0], wire.Ready(JOB)).payload for s in (pair.a, pair.a, again)]
    assert len({bytes(payload) for payload in sealed}) == 3


@given(at=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_no_byte_may_change(at: int, flip: int) -> None:
    pair = Pair()
    sealed = pair.seal(wire.Finish(JOB, "stop", 3))
    changed = bytearray(sealed.payload)
    changed[at % len(changed)] ^= flip
    with pytest.raises(ForgedFrame):
        pair.b.open(RELAY, replace(sealed, payload=bytes(changed)))
    assert pair.b.open(RELAY, sealed) == wire.Finish(JOB, "stop", 3)


def test_sender_receiver_job_and_gateway_are_bound(pair: Pair) -> None:
    sealed = pair.seal(wire.Ready(JOB))
    third = curve_pair()
    for relay, changed in (
        (RELAY, replace(sealed, peer=third[0])),
        (RELAY, replace(sealed, job=OTHER_JOB)),
        (RELAY, replace(sealed, peer=bytes(32))),
        (OTHER_RELAY, sealed),
    ):
        with pytest.raises(ForgedFrame):
            pair.b.open(relay, changed)
    with pytest.raises(ForgedFrame):  # sent back to who sealed it
        pair.a.open(RELAY, replace(sealed, peer=pair.keys_b[0]))
    assert pair.b.open(RELAY, sealed) == wire.Ready(JOB)


def test_a_frame_is_opened_once_and_never_after_a_later_one(pair: Pair) -> None:
    frames = [pair.seal(wire.Token(JOB, n, n, n)) for n in range(4)]
    pair.b.open(RELAY, frames[0])
    pair.b.open(RELAY, frames[2])  # one was lost on the way
    for old in (frames[0], frames[1], frames[2]):
        with pytest.raises(RepeatedFrame):
            pair.b.open(RELAY, old)
    pair.b.open(RELAY, frames[3])


def test_a_sender_that_started_again_is_heard_and_what_it_said_before_is_not(pair: Pair) -> None:
    before = [pair.seal(wire.Ready(JOB)) for _ in range(2)]
    pair.b.open(RELAY, before[0])
    pair.a = Seals(*pair.keys_a)
    assert pair.b.open(RELAY, pair.seal(wire.Ready(JOB))) == wire.Ready(JOB)
    with pytest.raises(RepeatedFrame):
        pair.b.open(RELAY, before[1])


def test_only_frames_of_that_job_are_inside(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for frame in (wire.Listening(), pair.seal(wire.Ready(JOB))):
        with pytest.raises(LinkError):
            pair.a.seal(RELAY, pair.keys_b[0], frame)
    with monkeypatch.context() as lying:
        lying.setattr(seals_module, "encode", lambda frame: wire.encode(wire.Ready(OTHER_JOB)))
        other_job = pair.seal(wire.Ready(JOB))
        lying.setattr(seals_module, "encode", lambda frame: wire.encode(wire.Listening(1)))
        no_job = pair.seal(wire.Ready(JOB))
        lying.setattr(seals_module, "encode", lambda frame: [b"", b""])
        nothing = pair.seal(wire.Ready(JOB))
    for sealed in (other_job, no_job, nothing):
        with pytest.raises(MalformedFrame):
            pair.b.open(RELAY, sealed)


def test_sizes_are_bounded(pair: Pair) -> None:
    with pytest.raises(LinkError):
        pair.a.seal(RELAY, pair.keys_b[0], wire.Hidden(JOB, 0, 1, "float32", bytes(wire.MAX_PAYLOAD_BYTES)))
    sealed = pair.seal(wire.Ready(JOB))
    for size in (0, 1, OVERHEAD_BYTES - 1, OVERHEAD_BYTES):
        with pytest.raises(ForgedFrame):
            pair.b.open(RELAY, replace(sealed, payload=bytes(sealed.payload)[:size]))
        with pytest.raises(ForgedFrame):
            pair.b.open(RELAY, replace(sealed, payload=os.urandom(size)))


def test_senders_beyond_the_bound_are_not_remembered_and_push_nobody_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals_module, "MAX_SENDERS", 1)
    first = pair.seal(wire.Ready(JOB))
    pair.b.open(RELAY, first)
    late = curve_pair()
    sealed = Seals(*late).seal(RELAY, pair.keys_b[0], wire.Ready(JOB))
    with pytest.raises(ForgedFrame):
        pair.b.open(RELAY, replace(sealed, peer=late[0]))
    with pytest.raises(RepeatedFrame):
        pair.b.open(RELAY, first)


def test_a_key_that_is_no_key_cannot_be_sealed_for(pair: Pair) -> None:
    with pytest.raises(LinkError):
        pair.a.seal(RELAY, bytes(32), wire.Ready(JOB))
