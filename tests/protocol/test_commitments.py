"""Commitments: the same rows give the same heads however they come; any change shows."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from declai.protocol import commitments
from declai.protocol.commitments import CHUNK_TOKENS, StageCommitment
from declai.protocol.errors import CommitmentError

JOB, ASSIGNMENT, SHARDS = hashlib.sha256(b"job").digest(), hashlib.sha256(b"assignment").digest(), bytes(32)
WIDTH = 6


def rows_of(num_tokens: int, salt: int = 0) -> bytes:
    return b"".join(hashlib.sha256(f"{salt}:{i}".encode()).digest()[:WIDTH] for i in range(num_tokens))


def stage(number: int = 1) -> StageCommitment:
    return StageCommitment(JOB, ASSIGNMENT, number, "fp32", SHARDS)


def feed(target: StageCommitment, inputs: bytes, outputs: bytes, cuts: list[int]) -> None:
    total = len(inputs) // WIDTH
    edges = sorted({0, total, *(c % (total + 1) for c in cuts)})
    for first, end in itertools.pairwise(edges):
        target.received(first, inputs[first * WIDTH : end * WIDTH], end - first)
        target.sent(first, memoryview(outputs)[first * WIDTH : end * WIDTH], end - first)


@given(st.integers(1, 140), st.lists(st.integers(0, 10**6), max_size=12))
def test_any_chunking_of_the_same_rows_gives_the_same_heads(num_tokens: int, cuts: list[int]) -> None:
    inputs, outputs = rows_of(num_tokens), rows_of(num_tokens, 1)
    whole, parts = stage(), stage()
    feed(whole, inputs, outputs, [])
    feed(parts, inputs, outputs, cuts)
    assert whole.seal(num_tokens) == parts.seal(num_tokens)


@given(st.integers(1, 100), st.data())
def test_one_flipped_bit_changes_the_heads(num_tokens: int, data: st.DataObject) -> None:
    rows = rows_of(num_tokens)
    changed = bytearray(rows)
    changed[data.draw(st.integers(0, len(rows) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    before, after = stage(), stage()
    feed(before, rows, rows, [])
    feed(after, bytes(changed), bytes(changed), [])
    one, two = before.seal(num_tokens), after.seal(num_tokens)
    assert one.inputs != two.inputs
    assert one.outputs != two.outputs


@given(st.integers(1, 100))
def test_neighbours_match_and_records_give_back_the_signed_heads(num_tokens: int) -> None:
    between = rows_of(num_tokens, 7)
    first, second = stage(0), stage(1)
    feed(first, rows_of(num_tokens), between, [])
    feed(second, between, rows_of(num_tokens, 9), [5, 33])
    output = commitments.output_record([1, 2], 3, b"{}")
    sealed = [first.seal(num_tokens), second.seal(num_tokens, output)]
    records = [commitments.parse_records(s.records, JOB, i, num_tokens) for i, s in enumerate(sealed)]
    assert commitments.heads(records[0], JOB, ASSIGNMENT) == (sealed[0].inputs, sealed[0].outputs)
    assert commitments.heads(records[1], JOB, ASSIGNMENT, output) == (sealed[1].inputs, sealed[1].outputs)
    assert commitments.heads(records[1], JOB, ASSIGNMENT)[1] != sealed[1].outputs
    assert commitments.neighbours_match(records[0], records[1])
    assert not commitments.neighbours_match(records[1], records[0])
    assert commitments.link_chain(JOB, 1, [r.out_root for r in records[0]]) == sealed[1].inputs


@given(st.integers(2, 130))
def test_a_stage_one_token_ahead_seals_what_the_last_stage_counted(num_tokens: int) -> None:
    exact, ahead = stage(), stage()
    rows = rows_of(num_tokens)
    feed(ahead, rows, rows, [])
    short = rows[: (num_tokens - 1) * WIDTH]
    feed(exact, short, short, [])
    assert exact.seal(num_tokens - 1) == ahead.seal(num_tokens - 1)


@given(st.integers(1, 200), st.data())
def test_a_truncated_commitment_is_that_of_a_job_that_never_went_so_far(num_tokens: int, data: st.DataObject) -> None:
    """Again and again, each time as far back as may be, and with the hashing done at once or late."""
    waiting: list[Callable[[], None]] = []
    late = StageCommitment(JOB, ASSIGNMENT, 1, "fp32", SHARDS, lambda action, _: waiting.append(action))
    now, wanted = stage(), stage()
    inputs, outputs, length, begin, salt = b"", b"", 0, 0, 0
    for _ in range(data.draw(st.integers(1, 4))):
        more, salt = data.draw(st.integers(1, num_tokens)), salt + 1
        rows = rows_of(more, salt), rows_of(more, -salt)
        for target in (now, late):
            target.received(length, rows[0], more)
            target.sent(length, rows[1], more)
        inputs, outputs, length = inputs + rows[0], outputs + rows[1], length + more
        begin = max(begin, (-(-length // CHUNK_TOKENS) - 2) * CHUNK_TOKENS)
        position = data.draw(st.integers(begin, length))
        for target in (now, late):
            target.truncate(position)
        inputs, outputs, length = inputs[: position * WIDTH], outputs[: position * WIDTH], position
    for action in waiting:
        action()
    if length:
        feed(wanted, inputs, outputs, [])
        assert now.seal(length) == late.seal(length) == wanted.seal(length)


def test_a_commitment_cannot_be_truncated_into_a_sealed_chunk() -> None:
    one = stage()
    rows = rows_of(3 * CHUNK_TOKENS)
    feed(one, rows, rows, [])
    with pytest.raises(CommitmentError):
        one.truncate(CHUNK_TOKENS - 1)
    one.truncate(CHUNK_TOKENS)
    one.truncate(CHUNK_TOKENS + 5)
    assert one.seal(CHUNK_TOKENS).records == stage_of(rows, CHUNK_TOKENS).seal(CHUNK_TOKENS).records
    with pytest.raises(CommitmentError):
        one.truncate(CHUNK_TOKENS - 1)


def test_one_side_may_be_longer_than_the_other_when_both_are_truncated() -> None:
    one, rows = stage(), rows_of(9)
    one.received(0, rows, 9)
    one.sent(0, rows[: 4 * WIDTH], 4)
    one.truncate(6)
    one.sent(4, rows[4 * WIDTH : 6 * WIDTH], 2)
    assert one.seal(6) == stage_of(rows, 6).seal(6)


def stage_of(rows: bytes, num_tokens: int) -> StageCommitment:
    one = stage()
    feed(one, rows[: num_tokens * WIDTH], rows[: num_tokens * WIDTH], [])
    return one


def test_the_format_is_the_documented_one() -> None:
    rows = rows_of(3)
    leaves = [
        hashlib.sha256(b"\0" + p.to_bytes(4, "big") + rows[p * WIDTH : (p + 1) * WIDTH]).digest() for p in range(3)
    ]
    root = hashlib.sha256(b"\1" + hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest() + leaves[2]).digest()
    one = stage()
    feed(one, rows, rows, [])
    sealed = one.seal(3)
    record = bytes([1, 0, 1, 0]) + bytes(4) + bytes(4) + b"\0\3" + JOB[:16] + SHARDS + root + root + bytes(128)
    assert sealed.records == record
    assert len(record) == 254
    start = hashlib.sha256(b"DeCLAI link" + JOB + b"\1").digest()
    assert sealed.inputs == hashlib.sha256(start + root).digest()
    assert sealed.outputs == hashlib.sha256(ASSIGNMENT + record).digest()


def test_gaps_repeats_and_ragged_rows_are_refused() -> None:
    one = stage()
    one.received(0, rows_of(2), 2)
    for first, size, count in [(1, WIDTH, 1), (3, WIDTH, 1), (2, 5, 2), (2, 0, 0)]:
        with pytest.raises(CommitmentError):
            one.received(first, bytes(size), count)
    for num_positions in (0, 3):
        with pytest.raises(CommitmentError):
            one.seal(num_positions)


@given(st.integers(1, 70), st.data())
def test_altered_records_are_refused_or_give_other_heads(num_tokens: int, data: st.DataObject) -> None:
    one = stage()
    feed(one, rows_of(num_tokens), rows_of(num_tokens, 1), [])
    sealed = one.seal(num_tokens)
    altered = bytearray(sealed.records)
    altered[data.draw(st.integers(0, len(altered) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        records = commitments.parse_records(altered, JOB, 1, num_tokens)
    except CommitmentError:
        return
    assert commitments.heads(records, JOB, ASSIGNMENT)[1] != sealed.outputs


@given(st.binary(max_size=600), st.integers(1, 70))
def test_arbitrary_records_never_raise_anything_else(data: bytes, num_positions: int) -> None:
    with pytest.raises(CommitmentError):
        commitments.parse_records(data, JOB, 0, num_positions)


@pytest.mark.parametrize("num_positions", [0, -1])
def test_no_positions_have_no_records(num_positions: int) -> None:
    with pytest.raises(CommitmentError):
        commitments.parse_records(b"", JOB, 0, num_positions)


def test_a_full_chunk_has_one_record_and_the_next_token_starts_another() -> None:
    one = stage()
    rows = rows_of(CHUNK_TOKENS + 1)
    feed(one, rows, rows, [])
    assert len(one.seal(CHUNK_TOKENS).records) == 254
    assert len(one.seal(CHUNK_TOKENS + 1).records) == 508
