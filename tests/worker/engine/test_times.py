"""What is learned of steps' times. Pure Python."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from declai.worker.engine.turns.times import StepTimes
from tests.support.turns import ClockedScheduler


@given(st.dictionaries(st.integers(1, 32), st.floats(0.001, 1), min_size=1), st.integers(1, 40))
def test_times_lie_between_those_of_steps_that_were_tried(tried: dict[int, float], number: int) -> None:
    times = StepTimes()
    for num_sequences, seconds in tried.items():
        times.note(num_sequences, 0, seconds)
    tried = {size: min(tried[more] for more in tried if more >= size) for size in tried}  # fewer take no longer
    found = times.decode_s(number)
    if number in tried:
        assert found == pytest.approx(tried[number])
    assert found <= max(tried.values()) * (1 + 1e-9)
    if number >= min(tried):
        assert found >= min(tried.values()) * (1 - 1e-9)
    else:
        assert found == pytest.approx(tried[min(tried)] * number / min(tried))


def test_times_are_of_sequences_whatever_they_were_fed_at_once() -> None:
    scheduler = ClockedScheduler(512, 256, 8, samples=False)
    scheduler.add(b"a", 1, 1000)
    for _ in range(2):
        scheduler.come(b"a", 1)
        scheduler.ran(scheduler.step(), 0.01)
    scheduler.come(b"a", 300)
    scheduler.ran(scheduler.step(), 0.05)
    times = StepTimes()
    times.note(1, 0, 0.01)
    times.note(1, 0, 0.05)
    assert scheduler._times.decode_s(300) == times.decode_s(1)


def test_first_steps_are_soon_outweighed() -> None:
    """Their caches were cold, and kernels had to be made."""
    times = StepTimes()
    times.note(1, 0, 0.05)
    times.note(1, 8, 0.08)
    assert times.prompt_token_s == pytest.approx(0.03 / 8)
    for _ in range(20):
        times.note(1, 0, 0.01)
    for _ in range(4):
        times.note(1, 128, 0.01 + 128 * 0.0003)
    assert times.decode_s(1) < 0.02
    assert times.prompt_token_s < 0.0004


def test_fewer_sequences_take_no_longer_than_more() -> None:
    times = StepTimes()
    times.note(4, 0, 0.015)  # once, on a busy machine
    times.note(8, 0, 0.010)
    assert times.decode_s(4) == times.decode_s(8) == times.shortest_s == 0.010
