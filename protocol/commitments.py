"""Byte commitments of a stage: what it received and sent, one leaf per token, one tree per 32 tokens. Torch-free.

Everything is sha256: fast in C where the bytes lie, and a precompile on the EVM.

- leaf of position p: sha256(0x00 || p as u32 big-endian || wire bytes)
- inner node: sha256(0x01 || left || right); an odd node is promoted
- a record of 254 bytes binds both roots of a chunk (`RECORD`)
- link chain: g_-1 = sha256("DeCLAI link" || job id || link), g_i = sha256(g_i-1 || root_i); link k leads into stage k
- record chain: h_-1 = assignment digest, h_i = sha256(h_i-1 || record_i); the last stage appends `output_record`
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from declai.chain.fields import NUMERIC_PROFILES
from declai.protocol.errors import CommitmentError
from declai.protocol.wire import RECORD_BYTES, Buffer

# Runs an action some time later, in the order of the calls; the second argument is how many bytes it holds.
Later = Callable[[Callable[[], None], int], None]

CHUNK_TOKENS = 32
# Of how many chunks a side keeps the leaves. With two, it can always be cut by a chunk's length.
KEPT_CHUNKS = 2
RECORD_VERSION = 1
RECORD = struct.Struct(">BBBBIIH16s32s32s32s128s")
assert RECORD.size == RECORD_BYTES

_LEAF_PREFIX = struct.Struct(">BI")
_NO_SKETCH = bytes(128)


def _sha256(*parts: Buffer) -> bytes:
    h = hashlib.sha256()
    for part in parts:
        h.update(part)
    return h.digest()


def leaf(position: int, wire_bytes: Buffer) -> bytes:
    """The hash of one token's wire bytes at its position."""
    h = hashlib.sha256(_LEAF_PREFIX.pack(0, position))
    h.update(wire_bytes)
    return h.digest()


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """Root over a chunk's leaves; raises CommitmentError for none."""
    if not leaves:
        raise CommitmentError("a chunk has at least one token")
    level = list(leaves)
    while len(level) > 1:
        paired = [_sha256(b"\x01", level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0]


def token_roots(token_ids: Sequence[int | None]) -> list[bytes]:
    """Chunk roots of one side that carries token ids; None stands for a position without one (empty bytes)."""
    leaves = [leaf(position, b"" if t is None else struct.pack("<I", t)) for position, t in enumerate(token_ids)]
    return [tree_root(leaves[i : i + CHUNK_TOKENS]) for i in range(0, len(leaves), CHUNK_TOKENS)]


def link_chain(job_id: bytes, link: int, roots: Iterable[bytes]) -> bytes:
    """Head of the chain over one link's chunk roots; link k leads into stage k, link 0 is the gateway's."""
    head = _sha256(b"DeCLAI link", job_id, bytes([link]))
    for root in roots:
        head = _sha256(head, root)
    return head


def record_chain(assignment_digest: bytes, records: Iterable[Buffer]) -> bytes:
    """Head of the chain over a stage's records."""
    head = assignment_digest
    for record in records:
        head = _sha256(head, record)
    return head


def output_record(token_ids: Sequence[int], seed: int, sampling: bytes) -> bytes:
    """What the last stage appends to its record chain: the tokens and how they were drawn (`Sampling.canonical()`)."""
    tokens = struct.pack(f"<{len(token_ids)}I", *token_ids)
    return _sha256(b"DeCLAI tokens", struct.pack(">I", len(token_ids)), tokens, struct.pack(">Q", seed), sampling)


@dataclass(frozen=True)
class ChunkRecord:
    """One chunk's record, parsed."""

    version: int
    numeric_profile: int
    stage: int
    chunk_index: int
    first_position: int
    num_tokens: int
    job_prefix: bytes
    shard_root: bytes
    in_root: bytes
    out_root: bytes

    def pack(self) -> bytes:
        """The 254 bytes; the sketch's place is zeros in version 1."""
        return RECORD.pack(
            self.version,
            self.numeric_profile,
            self.stage,
            0,
            self.chunk_index,
            self.first_position,
            self.num_tokens,
            self.job_prefix,
            self.shard_root,
            self.in_root,
            self.out_root,
            _NO_SKETCH,
        )

    @classmethod
    def unpack(cls, data: Buffer) -> ChunkRecord:
        """Raises CommitmentError on any byte that version 1 does not allow."""
        if memoryview(data).nbytes != RECORD.size:
            raise CommitmentError(f"a record is {RECORD.size} bytes")
        version, profile, stage, reserved, chunk, first, count, *hashes, sketch = RECORD.unpack(data)
        if version != RECORD_VERSION or reserved or sketch != _NO_SKETCH or profile not in NUMERIC_PROFILES.values():
            raise CommitmentError(f"chunk {chunk} is no record of version {RECORD_VERSION}")
        if first != chunk * CHUNK_TOKENS or not 1 <= count <= CHUNK_TOKENS:
            raise CommitmentError(f"chunk {chunk} cannot hold {count} positions from {first}")
        return cls(version, profile, stage, chunk, first, count, *hashes)


@dataclass(frozen=True)
class Commitment:
    """What a stage signs: head of its input link's chain, head of its record chain, and the records themselves."""

    inputs: bytes
    outputs: bytes
    records: bytes


class _Side:
    """The chunk roots of one side of a stage, built as rows come in any number at a time.

    The leaves of the two newest chunks are kept, and the older ones folded into a root only when a third begins. So a
    side can be cut at any position from `floor`, the begin of what was never folded, on: rows may turn out to be no
    part of the job.
    """

    def __init__(self) -> None:
        self._roots: list[bytes] = []
        self._leaves: list[bytes] = []
        # These count what was taken, hashed already or not.
        self.num_tokens = 0
        self.floor = 0

    def count(self, num_tokens: int) -> None:
        self.num_tokens += num_tokens
        self.floor = max(self.floor, (-(-self.num_tokens // CHUNK_TOKENS) - KEPT_CHUNKS) * CHUNK_TOKENS)

    def hash(self, first_position: int, rows: memoryview, num_tokens: int) -> None:
        width = rows.nbytes // num_tokens
        for row in range(num_tokens):
            if len(self._leaves) == KEPT_CHUNKS * CHUNK_TOKENS:
                self._roots.append(tree_root(self._leaves[:CHUNK_TOKENS]))
                del self._leaves[:CHUNK_TOKENS]
            self._leaves.append(leaf(first_position + row, rows[row * width : (row + 1) * width]))

    def check_cut(self, num_tokens: int) -> None:
        if not self.floor <= num_tokens <= self.num_tokens:
            raise CommitmentError(f"{self.num_tokens} tokens cannot be cut to {num_tokens}")

    def cut(self, num_tokens: int) -> None:
        del self._leaves[num_tokens - len(self._roots) * CHUNK_TOKENS :]

    def roots(self, num_tokens: int) -> list[bytes]:
        self.check_cut(num_tokens)
        first_leaf = len(self._roots) * CHUNK_TOKENS
        if first_leaf + len(self._leaves) != self.num_tokens:
            raise CommitmentError(f"{first_leaf + len(self._leaves)} of {self.num_tokens} tokens were hashed")
        leaves = self._leaves[: num_tokens - first_leaf]
        return self._roots + [tree_root(leaves[i : i + CHUNK_TOKENS]) for i in range(0, len(leaves), CHUNK_TOKENS)]


class StageCommitment:
    """Collects one stage's rows and seals them. Rows of a side must continue without a gap; sides may run apart."""

    def __init__(
        self,
        job_id: bytes,
        assignment_digest: bytes,
        stage: int,
        profile: str,
        shard_root: bytes,
        later: Later = lambda action, num_bytes: action(),
    ) -> None:
        """`later(action, num_bytes)` runs the hashing; `seal` must come after all that was handed to it is done."""
        self._job_id = job_id
        self._assignment_digest = assignment_digest
        self._stage = stage
        self._profile = NUMERIC_PROFILES[profile]
        self._shard_root = shard_root
        self._later = later
        self._in = _Side()
        self._out = _Side()

    def received(self, first_position: int, rows: Buffer, num_tokens: int) -> None:
        """`rows`: `num_tokens` rows of equal size, as they came over the link. Raises CommitmentError on a gap."""
        self._extend(self._in, first_position, rows, num_tokens)

    def sent(self, first_position: int, rows: Buffer, num_tokens: int) -> None:
        """`rows` as they went over the link; the last stage's are token ids, or empty before the first output token."""
        self._extend(self._out, first_position, rows, num_tokens)

    def check_seal(self, num_positions: int) -> None:
        """Raises CommitmentError where `seal` would, before the hashing is done."""
        if num_positions < 1:
            raise CommitmentError("no positions cannot be sealed")
        for side in (self._in, self._out):
            side.check_cut(num_positions)

    def truncate(self, position: int) -> None:
        """Forget all rows from `position` on, on both sides; the next ones continue there.

        Raises CommitmentError, and leaves both as they were, when that is before the begin of a side's last chunk but
        one: older rows are in roots that cannot be opened again.
        """
        longer = [side for side in (self._in, self._out) if side.num_tokens > position]
        for side in longer:
            side.check_cut(position)
        for side in longer:
            side.num_tokens = position
            self._later(partial(side.cut, position), 0)

    def seal(self, num_positions: int, output: bytes | None = None) -> Commitment:
        """Commit to the first `num_positions` positions; `output`: the last stage's `output_record`.

        Raises CommitmentError when a side has fewer rows, or so many more that it cannot be cut.
        """
        self.check_seal(num_positions)
        in_roots, out_roots = self._in.roots(num_positions), self._out.roots(num_positions)
        records = [
            self._record(chunk, num_positions, in_root, out_root).pack()
            for chunk, (in_root, out_root) in enumerate(zip(in_roots, out_roots, strict=True))
        ]
        head = record_chain(self._assignment_digest, records + ([output] if output is not None else []))
        return Commitment(link_chain(self._job_id, self._stage, in_roots), head, b"".join(records))

    def _extend(self, side: _Side, first_position: int, rows: Buffer, num_tokens: int) -> None:
        view = memoryview(rows).cast("B") if rows else memoryview(b"")
        if first_position != side.num_tokens or num_tokens < 1 or view.nbytes % num_tokens:
            given = f"{view.nbytes} bytes for {num_tokens} tokens at {first_position}"
            raise CommitmentError(f"{given} do not follow {side.num_tokens} tokens")
        side.count(num_tokens)
        self._later(lambda: side.hash(first_position, view, num_tokens), view.nbytes)

    def _record(self, chunk: int, num_positions: int, in_root: bytes, out_root: bytes) -> ChunkRecord:
        first = chunk * CHUNK_TOKENS
        count = min(CHUNK_TOKENS, num_positions - first)
        prefix = self._job_id[:16]
        shard = self._shard_root
        return ChunkRecord(
            RECORD_VERSION, self._profile, self._stage, chunk, first, count, prefix, shard, in_root, out_root
        )


def parse_records(data: Buffer, job_id: bytes, stage: int, num_positions: int) -> list[ChunkRecord]:
    """The records of one stage of one job, checked to cover `num_positions` without gap or overlap.

    Raises CommitmentError.
    """
    if num_positions < 1:
        raise CommitmentError(f"{num_positions} positions have no records")
    view = memoryview(data).cast("B") if data else memoryview(b"")
    expected = -(-num_positions // CHUNK_TOKENS)
    if view.nbytes != expected * RECORD_BYTES:
        raise CommitmentError(f"{view.nbytes} bytes are not {expected} records")
    records = [ChunkRecord.unpack(view[i : i + RECORD_BYTES]) for i in range(0, view.nbytes, RECORD_BYTES)]
    for chunk, record in enumerate(records):
        count = min(CHUNK_TOKENS, num_positions - chunk * CHUNK_TOKENS)
        if (record.chunk_index, record.num_tokens, record.stage) != (chunk, count, stage):
            raise CommitmentError(f"record {chunk} of stage {stage} is out of place")
        if record.job_prefix != job_id[:16]:
            raise CommitmentError(f"record {chunk} belongs to another job")
        if (record.shard_root, record.numeric_profile) != (records[0].shard_root, records[0].numeric_profile):
            raise CommitmentError(f"record {chunk} changes weights or numeric profile")
    return records


def heads(
    records: Sequence[ChunkRecord], job_id: bytes, assignment_digest: bytes, output: bytes | None = None
) -> tuple[bytes, bytes]:
    """(inputs, outputs) that a stage with these records must have signed."""
    packed = [record.pack() for record in records] + ([output] if output is not None else [])
    stage = records[0].stage if records else 0
    return link_chain(job_id, stage, (r.in_root for r in records)), record_chain(assignment_digest, packed)


def neighbours_match(
    upstream: Sequence[ChunkRecord], downstream: Sequence[ChunkRecord], from_position: int = 0
) -> bool:
    """Whether what a stage says it sent is what the next says it received, chunk by chunk.

    `from_position`: where what the first stage's node sent begins. Chunks with rows before came of another node.
    """
    first = -(-from_position // CHUNK_TOKENS)
    return [record.out_root for record in upstream[first:]] == [record.in_root for record in downstream[first:]]
