"""Seals between link keys: the gateway that passes a frame on can neither read nor change nor forge nor repeat it.

A link key is a Curve25519 key. For every sender, receiver and gateway between them there is one stream at a time:

    stream  = time (u64, nanoseconds) | 8 random bytes, all big-endian
    key     = HKDF-SHA256(X25519(own secret, peer's public), salt=stream, info=LABEL | gateway | sender | receiver)
    payload = stream | counter (u64) | AES-256-GCM(key, nonce=counter, data=header size (u16) | header | payload, job)

A key lives no longer than the process that made its stream, and a counter only rises, so no nonce comes twice. A
receiver takes what is later than all it took from that sender: a later counter, or a later stream after its restart
(a clock set back in between leaves it unheard). Who gets hold of a link key can open what a gateway kept of its frames.
"""

from __future__ import annotations

import secrets
import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from declai.links.errors import LinkError
from declai.protocol.errors import ForgedFrame, MalformedFrame, RepeatedFrame
from declai.protocol.wire import (
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    Frame,
    Heartbeat,
    Listening,
    Ping,
    Pong,
    Relayed,
    decode,
    encode,
)

LABEL = b"DeCLAI relayed frames 1"
STREAM_BYTES, COUNTER_BYTES, NONCE_BYTES, TAG_BYTES, SIZE_BYTES = 16, 8, 12, 16, 2
PREFIX_BYTES = STREAM_BYTES + COUNTER_BYTES
# What a frame takes in memory beside its payload while it waits.
FRAME_BYTES = 1024
OVERHEAD_BYTES = PREFIX_BYTES + SIZE_BYTES + TAG_BYTES
# Who came first stays: to forget a sender would let a gateway repeat that sender's frames.
MAX_SENDERS = 10_000
MAX_RECEIVERS = 10_000


class _Stream:
    """One direction between two keys: the cipher, and the counter of the newest frame (-1 before the first)."""

    def __init__(self, name: bytes, cipher: AESGCM) -> None:
        self.name = name
        self.cipher = cipher
        self.counter = -1


class Seals:
    """Seals and opens for one link key. Used by one thread."""

    def __init__(self, public: bytes, secret: bytes) -> None:
        self._public = public
        self._secret = X25519PrivateKey.from_private_bytes(secret)
        self._outward: dict[tuple[bytes, bytes], _Stream] = {}
        self._inward: dict[tuple[bytes, bytes], _Stream] = {}

    def seal(self, relay: bytes, receiver: bytes, frame: Frame) -> Relayed:
        """A frame of a job as the gateway of link key `relay` may see it.

        Raises:
            LinkError: the frame is too large, has no job, or `receiver` is no key.
        """
        if isinstance(frame, Heartbeat | Ping | Pong | Listening | Relayed):
            raise LinkError(f"a {frame.kind} frame is not relayed")
        header, payload = encode(frame)
        size = OVERHEAD_BYTES + len(header) + memoryview(payload).nbytes
        if size > MAX_PAYLOAD_BYTES:
            raise LinkError(f"{size} bytes are too many for a relayed frame")
        stream = self._outward.get((relay, receiver)) or self._begin(relay, receiver)
        stream.counter += 1
        text = b"".join((len(header).to_bytes(SIZE_BYTES, "big"), header, payload))
        sealed = stream.cipher.encrypt(_nonce(stream.counter), text, frame.job)
        prefix = stream.name + stream.counter.to_bytes(COUNTER_BYTES, "big")
        return Relayed(frame.job, receiver, prefix + sealed)

    def open(self, relay: bytes, relayed: Relayed) -> Frame:
        """The frame that `relayed.peer` sealed for us and that came over the gateway of link key `relay`.

        Raises:
            RepeatedFrame: it, or a later one of the same sender, was opened before.
            ForgedFrame: it was not sealed by that key, for us, for this gateway and this job.
            MalformedFrame: what was sealed is no frame of that job.
        """
        sealed = memoryview(relayed.payload)
        if sealed.nbytes < OVERHEAD_BYTES:
            raise ForgedFrame(f"{sealed.nbytes} bytes are too few for a sealed frame")
        name = bytes(sealed[:STREAM_BYTES])
        counter = int.from_bytes(sealed[STREAM_BYTES:PREFIX_BYTES], "big")
        known = self._inward.get((relay, relayed.peer))
        if known is not None and (name, counter) <= (known.name, known.counter):
            raise RepeatedFrame(f"frame {counter} of {relayed.peer.hex()} is not later than {known.counter}")
        stream = known
        if stream is None or stream.name != name:
            stream = self._stream(name, relayed.peer, relay, relayed.peer, self._public)
        try:
            text = stream.cipher.decrypt(_nonce(counter), sealed[PREFIX_BYTES:], relayed.job)
        except InvalidTag:
            raise ForgedFrame(f"not sealed by {relayed.peer.hex()}") from None
        if known is None and len(self._inward) >= MAX_SENDERS:
            raise ForgedFrame(f"{MAX_SENDERS} senders are known, which is all that are remembered")
        stream.counter = counter
        self._inward[relay, relayed.peer] = stream
        return _unpacked(text, relayed.job)

    def _begin(self, relay: bytes, receiver: bytes) -> _Stream:
        if len(self._outward) >= MAX_RECEIVERS:
            self._outward.clear()  # new streams are later ones
        name = time.time_ns().to_bytes(8, "big") + secrets.token_bytes(STREAM_BYTES - 8)
        try:
            stream = self._stream(name, receiver, relay, self._public, receiver)
        except ForgedFrame as error:
            raise LinkError(str(error)) from None
        self._outward[relay, receiver] = stream
        return stream

    def _stream(self, name: bytes, peer: bytes, relay: bytes, sender: bytes, receiver: bytes) -> _Stream:
        try:
            shared = self._secret.exchange(X25519PublicKey.from_public_bytes(peer))
        except ValueError:  # a point of small order, with which everybody shares the same
            raise ForgedFrame(f"{peer.hex()} is no link key") from None
        key = HKDF(SHA256(), 32, salt=name, info=LABEL + relay + sender + receiver).derive(shared)
        return _Stream(name, AESGCM(key))


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(NONCE_BYTES, "big")


def _unpacked(text: bytes, job: bytes) -> Frame:
    """What was sealed. Raises MalformedFrame."""
    size, view = int.from_bytes(text[:SIZE_BYTES], "big"), memoryview(text)[SIZE_BYTES:]
    if size > min(MAX_HEADER_BYTES, view.nbytes):
        raise MalformedFrame(f"a header of {size} bytes is too long")
    frame = decode([view[:size], view[size:]])
    if isinstance(frame, Heartbeat | Ping | Pong | Listening | Relayed) or frame.job != job:
        raise MalformedFrame(f"a {frame.kind} frame that is not of this job")
    return frame
