"""Whose turn it is, and who may take memory: pure Python, over any order of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker.engine.cache import CacheManager
from worker.engine.errors import AtCapacity, PositionMismatch
from worker.engine.scheduler import Chunk, Scheduler


@given(
    pieces=st.lists(st.integers(1, 50), min_size=1, max_size=20), max_chunk=st.integers(1, 20), samples=st.booleans()
)
def test_every_position_is_computed_once_and_in_order(pieces: list[int], max_chunk: int, samples: bool) -> None:
    total = sum(pieces)
    num_prompt = max(1, total // 2)
    scheduler = Scheduler(max_chunk, samples)
    scheduler.add(b"a", num_prompt, total)
    chunks: list[Chunk] = []
    at = 0
    for piece in pieces:
        scheduler.check_feed(b"a", at, piece)
        scheduler.feed(b"a", piece)
        at += piece
        if chunk := scheduler.schedule():
            chunks.append(chunk)
    while chunk := scheduler.schedule():
        chunks.append(chunk)
    assert [chunk.first_position for chunk in chunks] == [
        sum(chunk.num_tokens for chunk in chunks[:index]) for index in range(len(chunks))
    ]
    assert sum(chunk.num_tokens for chunk in chunks) == total
    assert all(1 <= chunk.num_tokens <= max_chunk for chunk in chunks)
    if samples:
        ends = {chunk.first_position + chunk.num_tokens for chunk in chunks}
        assert ends >= set(range(num_prompt, total + 1))
    scheduler.check_integrity()


def test_a_long_prompt_does_not_keep_others_waiting() -> None:
    scheduler = Scheduler(max_chunk_tokens=10, samples=False)
    for session_id, num_tokens in ((b"long", 1000), (b"b", 1), (b"c", 15)):
        scheduler.add(session_id, num_tokens, num_tokens)
        scheduler.feed(session_id, num_tokens)
    order = [chunk.session_id for _ in range(6) if (chunk := scheduler.schedule())]
    assert order == [b"long", b"b", b"c", b"long", b"c", b"long"]


def test_a_removed_session_has_no_turn() -> None:
    scheduler = Scheduler(10, samples=False)
    scheduler.add(b"a", 5, 5)
    scheduler.feed(b"a", 5)
    scheduler.remove(b"a")
    scheduler.remove(b"a")
    assert scheduler.schedule() is None
    assert not scheduler.has_waiting


def test_positions_that_do_not_continue_are_refused() -> None:
    scheduler = Scheduler(10, samples=False)
    scheduler.add(b"a", 3, 5)
    scheduler.feed(b"a", 3)
    for first, count in ((2, 1), (4, 1), (3, 3), (3, 0), (3, -1)):
        with pytest.raises(PositionMismatch):
            scheduler.check_feed(b"a", first, count)
    scheduler.check_feed(b"a", 3, 2)


class Turns(RuleBasedStateMachine):
    """No session that waits is passed over twice, whoever comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(max_chunk_tokens=4, samples=False)
        self.fed: dict[bytes, int] = {}
        self.done: dict[bytes, int] = {}
        self.passed_over: dict[bytes, set[bytes]] = {}

    @rule(name=st.binary(min_size=1, max_size=1))
    def add(self, name: bytes) -> None:
        if name not in self.fed:
            self.scheduler.add(name, 100, 10_000)
            self.fed[name] = self.done[name] = 0
            self.passed_over[name] = set()

    @precondition(lambda self: self.fed)
    @rule(data=st.data(), count=st.integers(1, 12))
    def feed(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.fed)))
        if self.fed[name] + count <= 10_000:
            self.scheduler.check_feed(name, self.fed[name], count)
            self.scheduler.feed(name, count)
            self.fed[name] += count

    @precondition(lambda self: self.fed)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.fed)))
        self.scheduler.remove(name)
        for books in (self.fed, self.done, self.passed_over):
            del books[name]

    @rule()
    def schedule(self) -> None:
        waiting = {name for name in self.fed if self.done[name] < self.fed[name]}
        chunk = self.scheduler.schedule()
        if chunk is None:
            assert not waiting
            return
        assert chunk.session_id in waiting
        assert chunk.first_position == self.done[chunk.session_id]
        self.done[chunk.session_id] += chunk.num_tokens
        self.passed_over[chunk.session_id] = set()
        for name in waiting - {chunk.session_id}:
            assert chunk.session_id not in self.passed_over[name]
            self.passed_over[name].add(chunk.session_id)

    @invariant()
    def books_agree(self) -> None:
        self.scheduler.check_integrity()


TestTurns = Turns.TestCase


@given(
    sizes=st.lists(st.integers(0, 60), max_size=30),
    max_sessions=st.integers(1, 5),
    leave=st.lists(st.integers(0, 29), max_size=30),
)
def test_memory_is_never_promised_twice(sizes: list[int], max_sessions: int, leave: list[int]) -> None:
    manager = CacheManager(max_sessions, max_bytes=100)
    held: dict[bytes, int] = {}
    for index, size in enumerate(sizes):
        name = bytes([index])
        fits = len(held) < max_sessions and sum(held.values()) + size <= 100
        assert manager.can_allocate(size) == fits
        if fits:
            manager.allocate(name, size)
            held[name] = size
        else:
            with pytest.raises(AtCapacity):
                manager.allocate(name, size)
        if index < len(leave):
            manager.free(bytes([leave[index]]))
            held.pop(bytes([leave[index]]), None)
        assert manager.used_bytes == sum(held.values()) <= 100
        manager.check_integrity(held)


def test_memory_without_a_session_is_noticed() -> None:
    manager = CacheManager(2, 100)
    manager.allocate(b"a", 10)
    with pytest.raises(AssertionError):
        manager.check_integrity([])
