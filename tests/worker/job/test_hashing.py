"""The hashing thread: order, faults, and the bound on what it holds; commitments that are hashed later are the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from declai.protocol.commitments import StageCommitment
from declai.protocol.errors import CommitmentError
from declai.worker.job import hashing
from declai.worker.job.hashing import Hasher


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    made = Hasher()
    made.start()
    yield made
    made.close()


def test_actions_run_in_order_and_a_failing_one_stops_none(hasher: Hasher) -> None:
    done: list[int] = []

    def fail() -> None:
        raise RuntimeError("on purpose")

    for number in range(10):
        hasher.put(lambda number=number: done.append(number))  # type: ignore[misc]
        hasher.put(fail)
    assert done == []
    hasher.flush()
    assert done == list(range(10))


def test_what_is_held_is_bounded(hasher: Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "MAX_PENDING_BYTES", 100)
    threads: list[threading.Thread] = []
    for _ in range(5):
        hasher.put(lambda: threads.append(threading.current_thread()), 30)
    assert threads == [hasher] * 4


def test_closing_does_what_was_put() -> None:
    hasher, done = Hasher(), list[int]()
    hasher.start()
    hasher.put(lambda: done.append(1))
    hasher.close()
    assert done == [1]


def commitment(later: Callable[[Callable[[], None], int], None] | None = None) -> StageCommitment:
    arguments = (bytes(32), bytes(32), 1, "fp32", bytes(32))
    return StageCommitment(*arguments) if later is None else StageCommitment(*arguments, later)


def test_a_commitment_hashed_later_is_the_same_and_knows_its_bounds_at_once() -> None:
    waiting: list[Callable[[], None]] = []
    late, at_once = commitment(lambda action, _: waiting.append(action)), commitment()
    for one in (late, at_once):
        for position in range(70):
            one.received(position, bytes([position]) * 16, 1)
        one.sent(0, bytes(range(210)), 70)
    for num_positions in (0, 31, 71):
        with pytest.raises(CommitmentError):
            late.check_seal(num_positions)
        with pytest.raises(CommitmentError):
            at_once.seal(num_positions)
    late.check_seal(69)
    for action in waiting:
        action()
    assert late.seal(69) == at_once.seal(69)


def test_a_row_that_could_not_be_hashed_leaves_nothing_to_sign(hasher: Hasher) -> None:
    """A root over the other rows would contradict what the neighbours saw, and that costs stake."""

    def fail() -> None:
        raise MemoryError

    def lose_one(action: Callable[[], None], num_bytes: int) -> None:
        hasher.put(fail if num_bytes == 24 else action, num_bytes)

    one = commitment(lose_one)
    for position in range(40):
        one.received(position, bytes(16 if position != 20 else 24), 1)
        one.sent(position, bytes(16), 1)
    hasher.flush()
    one.check_seal(40)
    for num_positions in (39, 40):
        with pytest.raises(CommitmentError):
            one.seal(num_positions)
