"""Whose turn it is, and who may take memory: pure Python, over any order of events."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from declai.worker.engine.errors import AtCapacity, PositionMismatch
from declai.worker.engine.memory.blocks import FreeBlocks
from declai.worker.engine.memory.cache import CacheManager
from declai.worker.engine.turns.fairness import FairQueue
from declai.worker.engine.turns.step import Chunk
from declai.worker.model.layout import BLOCK_TOKENS, CacheLayout, Group, Run
from tests.support.turns import ClockedScheduler


@given(
    pieces=st.lists(st.integers(1, 50), min_size=1, max_size=20), max_chunk=st.integers(1, 20), samples=st.booleans()
)
def test_every_position_is_computed_once_and_in_order(pieces: list[int], max_chunk: int, samples: bool) -> None:
    total = sum(pieces)
    num_prompt = max(1, total // 2)
    scheduler = ClockedScheduler(max_chunk, max_chunk, 4, samples=samples)
    scheduler.add(b"a", num_prompt, total)
    chunks: list[Chunk] = []
    at = 0
    for piece in pieces:
        scheduler.check_feed(b"a", at, piece)
        scheduler.come(b"a", piece)
        at += piece
        chunks += scheduler.step()
    while found := scheduler.step():
        chunks += found
    assert [chunk.first_position for chunk in chunks] == [
        sum(chunk.num_tokens for chunk in chunks[:index]) for index in range(len(chunks))
    ]
    assert sum(chunk.num_tokens for chunk in chunks) == total
    assert all(1 <= chunk.num_tokens <= max_chunk for chunk in chunks)
    if samples:
        ends = {chunk.end for chunk in chunks}
        assert ends >= set(range(num_prompt, total + 1))
    scheduler.check_integrity()


def prefilled(scheduler: ClockedScheduler, *names: bytes) -> None:
    """Sequences past a prompt of one token, each with its next token waiting."""
    for name in names:
        scheduler.add(name, 1, 1000)
        scheduler.come(name, 1)
    while scheduler.step():
        pass
    for name in names:
        scheduler.come(name, 1)


def test_every_sequence_that_decodes_is_in_every_step() -> None:
    scheduler = ClockedScheduler(100, 10, 8, samples=True)
    prefilled(scheduler, b"a", b"b", b"c")
    scheduler.add(b"long", 1000, 1001)
    scheduler.come(b"long", 1000)
    first, second = scheduler.step(), scheduler.step()
    assert [(chunk.sequence_id, chunk.num_tokens) for chunk in first] == [
        (b"a", 1),
        (b"b", 1),
        (b"c", 1),
        (b"long", 10),
    ]
    assert [(chunk.sequence_id, chunk.num_tokens) for chunk in second] == [(b"long", 10)]


def test_a_prompt_has_turns_where_a_step_takes_one_sequence_and_others_always_decode() -> None:
    scheduler = ClockedScheduler(100, 5, 1, samples=True)
    prefilled(scheduler, b"a", b"b")
    scheduler.add(b"c", 10, 1000)
    scheduler.come(b"c", 10)
    turns = b""
    for _ in range(6):
        (chunk,) = scheduler.step()
        turns += chunk.sequence_id
        if chunk.sequence_id != b"c":
            scheduler.come(chunk.sequence_id, 1)
    assert turns == b"cacbab"


def test_prompts_share_a_step_and_take_turns() -> None:
    scheduler = ClockedScheduler(10, 10, 8, samples=False)
    for sequence_id, num_tokens in ((b"long", 1000), (b"b", 1), (b"c", 15)):
        scheduler.add(sequence_id, num_tokens, num_tokens)
        scheduler.come(sequence_id, num_tokens)
    steps = [[(chunk.sequence_id, chunk.num_tokens) for chunk in scheduler.step()] for _ in range(4)]
    assert steps == [[(b"long", 10)], [(b"b", 1), (b"c", 9)], [(b"c", 6), (b"long", 4)], [(b"long", 10)]]


def test_sequences_that_decode_follow_each_other_in_groups() -> None:
    """Before any step was timed: as many as there are stages, so that each has one to compute."""
    scheduler = ClockedScheduler(100, 10, 8, samples=False)
    names = [bytes([number]) for number in range(6)]
    for name in names:
        scheduler.add(name, 1, 1000, num_stages=3)
        scheduler.come(name, 1)
    assert len(scheduler.step()) == 6  # prompts
    for name in names:
        scheduler.come(name, 1)
    steps = [[chunk.sequence_id for chunk in scheduler.step()] for _ in range(4)]
    assert steps == [names[:2], names[2:4], names[4:], []]


def test_prompts_get_tokens_in_proportion_to_their_weights() -> None:
    scheduler = ClockedScheduler(10, 10, 8, samples=False)
    for sequence_id, weight in ((b"a", 1.0), (b"b", 2.5)):
        scheduler.add(sequence_id, 1000, 1000, weight=weight)
        scheduler.come(sequence_id, 1000)
    done: Counter[bytes] = Counter()
    for _ in range(70):
        for chunk in scheduler.step():
            done[chunk.sequence_id] += chunk.num_tokens
    assert done == {b"a": 200, b"b": 500}


@given(
    weights=st.lists(st.sampled_from([1.0, 2.5, 5.0]), min_size=2, max_size=6),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=200),
    pauses=st.lists(st.integers(0, 5), max_size=20),
)
def test_who_always_waits_is_served_as_his_weight_says(
    weights: list[float], sizes: list[int], pauses: list[int]
) -> None:
    """The bound of the paper's theorem 1, for two sequences that wait all the time while others come and go."""
    queue = FairQueue()
    names = [bytes([index]) for index in range(len(weights))]
    for name, weight in zip(names, weights, strict=True):
        queue.add(name, weight)
        queue.wait(name)
    served = dict.fromkeys(names, 0.0)
    for turn, size in enumerate(sizes):
        name = queue.in_order()[0]
        leaves = turn < len(pauses) and name not in names[:2]
        queue.serve(name, size, waits=not leaves)
        served[name] += size / weights[names.index(name)]
        if turn >= len(pauses) or pauses[turn]:
            for other in names:
                queue.wait(other)
        first, second = names[:2]
        bound = 8 / weights[0] + 8 / weights[1]
        assert abs(served[first] - served[second]) <= bound + 1e-9


def test_a_step_has_no_more_sequences_than_allowed() -> None:
    scheduler = ClockedScheduler(100, 100, 2, samples=True)
    prefilled(scheduler, b"a", b"b", b"c")
    steps = [[chunk.sequence_id for chunk in scheduler.step()] for _ in range(3)]
    assert steps == [[b"a", b"b"], [b"c"], []]


def test_a_removed_sequence_has_no_turn() -> None:
    scheduler = ClockedScheduler(10, 10, 8, samples=False)
    scheduler.add(b"a", 5, 5)
    scheduler.come(b"a", 5)
    scheduler.remove(b"a")
    scheduler.remove(b"a")
    assert scheduler.step() == []
    assert not scheduler.has_waiting


def test_positions_that_do_not_continue_are_refused() -> None:
    scheduler = ClockedScheduler(10, 10, 8, samples=False)
    scheduler.add(b"a", 3, 5)
    scheduler.come(b"a", 3)
    for first, count in ((2, 1), (4, 1), (3, 3), (3, 0), (3, -1)):
        with pytest.raises(PositionMismatch):
            scheduler.check_feed(b"a", first, count)
    scheduler.check_feed(b"a", 3, 2)


class Turns(RuleBasedStateMachine):
    """Every position is computed once, in order, within the bounds of a step, whoever comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = ClockedScheduler(4, 2, 3, samples=False)
        self.fed: dict[bytes, int] = {}
        self.done: dict[bytes, int] = {}

    @rule(name=st.binary(min_size=1, max_size=1))
    def add(self, name: bytes) -> None:
        if name not in self.fed:
            self.scheduler.add(name, 100, 10_000)
            self.fed[name] = self.done[name] = 0

    @precondition(lambda self: self.fed)
    @rule(data=st.data(), count=st.integers(1, 60))
    def feed(self, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.fed)))
        if self.fed[name] + count <= 10_000:
            self.scheduler.check_feed(name, self.fed[name], count)
            self.scheduler.come(name, count)
            self.fed[name] += count

    @precondition(lambda self: self.fed)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.fed)))
        self.scheduler.remove(name)
        for books in (self.fed, self.done):
            del books[name]

    @rule(times=st.integers(1, 20))
    def schedule(self, times: int) -> None:
        for _ in range(times):
            waiting = {name for name in self.fed if self.done[name] < self.fed[name]}
            decoding = {name for name in self.fed if self.done[name] >= 100}
            chunks = self.scheduler.step()
            assert bool(chunks) == bool(waiting)
            assert len(chunks) <= 3
            prefill = sum(chunk.num_tokens for chunk in chunks if chunk.sequence_id not in decoding)
            assert prefill <= (2 if decoding else 4)
            chosen = {chunk.sequence_id for chunk in chunks}
            assert len(chosen) == len(chunks)
            for chunk in chunks:
                assert chunk.first_position == self.done[chunk.sequence_id]
                self.done[chunk.sequence_id] += chunk.num_tokens

    @invariant()
    def books_agree(self) -> None:
        self.scheduler.check_integrity()


TestTurns = Turns.TestCase


@given(
    sizes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 400)), max_size=30),
    max_sequences=st.integers(1, 5),
    leave=st.lists(st.integers(0, 29), max_size=30),
)
def test_memory_is_never_promised_twice(sizes: list[tuple[int, int]], max_sequences: int, leave: list[int]) -> None:
    layout = CacheLayout(1, (Group((0,), None, None), Group((1, 2), 8, 20)))
    manager = CacheManager(max_sequences, 1600, layout)
    held: dict[bytes, int] = {}
    for index, (size, num_tokens) in enumerate(sizes):
        name = bytes([index])
        needed = size + (blocks(num_tokens) + 2 * blocks(min(num_tokens, 20))) * BLOCK_TOKENS
        fits = len(held) < max_sequences and sum(held.values()) + needed <= 1600
        assert manager.can_allocate(size, num_tokens) == fits
        if fits:
            manager.allocate(name, size, num_tokens)
            held[name] = needed
            lengths = [lane.num_slots for lane in manager.lanes(name)]
            assert all(lengths[0] >= num_tokens and length >= min(num_tokens, 20) for length in lengths)
        else:
            with pytest.raises(AtCapacity):
                manager.allocate(name, size, num_tokens)
        if index < len(leave):
            manager.free(bytes([leave[index]]))
            held.pop(bytes([leave[index]]), None)
        assert manager.used_bytes == sum(held.values()) <= 1600
        manager.check_integrity(held)
        runs = [run for name in held for lane in manager.lanes(name) for run in lane.runs]
        slots = [slot for first, length in runs for slot in range(first, first + length)]
        assert len(slots) == len(set(slots))
        assert all(0 <= slot < 100 * BLOCK_TOKENS for slot in slots)


def blocks(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK_TOKENS)


def test_memory_without_a_sequence_is_noticed() -> None:
    manager = CacheManager(2, 100)
    manager.allocate(b"a", 10)
    with pytest.raises(AssertionError):
        manager.check_integrity([])


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=60))
def test_blocks_belong_to_one_taker_and_come_back(events: list[tuple[int, bool]]) -> None:
    free, held = FreeBlocks(30), list[tuple[Run, ...]]()
    for number, gives in events:
        if gives and held:
            free.give_back(held.pop(number % len(held)))
        elif number <= free.num_free:
            held.append(free.take(number))
            assert sum(length for _, length in held[-1]) == number
        else:
            with pytest.raises(ValueError, match="are free"):
                free.take(number)
        free.check_integrity([run for runs in held for run in runs])


def test_blocks_are_taken_in_as_few_runs_as_there_are() -> None:
    free = FreeBlocks(20)
    runs = [free.take(4) for _ in range(5)]
    for index in (0, 2, 3):
        free.give_back(runs[index])
    assert free.take(3) == ((0, 3),)
    assert free.take(8) == ((8, 8),)
    free.give_back(((8, 4),))
    assert free.take(5) == ((8, 4), (3, 1))


def test_a_held_sequence_gets_no_turn_and_goes_on_where_it_was() -> None:
    scheduler = ClockedScheduler(4, 2, 8, samples=False)
    for name in (b"a", b"b"):
        scheduler.add(name, 10, 20)
        scheduler.come(name, 6)
    scheduler.hold(b"a", True)
    assert [chunk.sequence_id for chunk in scheduler.step()] == [b"b"]
    scheduler.come(b"a", 4)
    scheduler.check_integrity()
    scheduler.step()
    assert not scheduler.has_waiting
    scheduler.hold(b"a", True)
    scheduler.hold(b"a", False)
    scheduler.hold(b"unknown", True)
    (chunk,) = scheduler.step()
    assert (chunk.sequence_id, chunk.first_position, chunk.num_tokens) == (b"a", 0, 4)
    scheduler.remove(b"a")
    scheduler.check_integrity()
