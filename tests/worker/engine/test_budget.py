"""What prompts get of steps: pure Python, on a clock of the tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from declai.worker.engine.turns.budget import (
    FIRST_TOKENS,
    MIN_TOKENS,
    MORE,
    PIECE_STEPS,
    SHARE,
    Rush,
    alone_s,
    beside_s,
    num_tokens_in,
    piece,
)
from declai.worker.engine.turns.step import Chunk
from declai.worker.engine.turns.times import StepTimes
from tests.support.turns import ClockedScheduler

NUM_STAGES = 3
NAMES = [bytes([number]) for number in range(8)]


def decoding_since_long(now: list[float], num_sequences: int, most: int = 256) -> ClockedScheduler:
    """One group of sequences with a round of 0.1 s, steps of 0.01 s, 0.001 s for a prompt token; all are away."""
    scheduler = ClockedScheduler(512, most, 8, samples=False, clock=lambda: now[0])
    names = NAMES[:num_sequences]
    scheduler.add(b"first", 400, 401, num_stages=NUM_STAGES)
    for name in names:
        scheduler.add(name, 1, 1000, num_stages=NUM_STAGES)
        scheduler.come(name, 1)
    scheduler.ran(scheduler.step(), 0.02)
    for number in range(50):
        now[0] += 0.1
        for name in names:
            scheduler.come(name, 1)
        if 3 <= number < 23:
            scheduler.come(b"first", 20)
        while chunks := scheduler.step():
            seconds = 0.01 + 0.001 * sum(chunk.num_prompt_tokens for chunk in chunks)
            scheduler.ran(chunks, seconds)
    scheduler.remove(b"first")
    return scheduler


def test_a_prompt_runs_alone_while_all_groups_are_away_as_far_as_there_is_time() -> None:
    now = [0.0]
    scheduler = decoding_since_long(now, 6)
    scheduler.add(b"prompt", 1000, 1001, num_stages=NUM_STAGES)
    scheduler.come(b"prompt", 1000)
    now[0] += 0.02
    assert scheduler.step_in_s == 0
    [chunk] = scheduler.step()
    assert 10 <= chunk.num_tokens <= 80  # milliseconds until the sequences are back
    now[0] += 0.075
    assert 0 < (scheduler.step_in_s or 0) < 0.1
    for name in NAMES[:6]:
        scheduler.come(name, 1)
    assert scheduler.step_in_s == 0
    assert all(not chunk.num_prompt_tokens for chunk in scheduler.step())  # it had its turn alone


def test_a_prompt_goes_with_a_group_where_there_is_no_time_for_it_alone() -> None:
    now = [0.0]
    scheduler = decoding_since_long(now, 6)
    scheduler.add(b"prompt", 1000, 1001, num_stages=NUM_STAGES)
    now[0] += 0.09
    scheduler.come(b"prompt", 1000)
    assert 0 < (scheduler.step_in_s or 0) < 0.1
    for name in NAMES[:6]:
        scheduler.come(name, 1)
    *_, chunk = scheduler.step()
    assert MIN_TOKENS <= chunk.num_prompt_tokens <= 10  # milliseconds of a step without


@pytest.mark.parametrize("most", [1, 4, 256])
@pytest.mark.parametrize("late_s", [0.13, 30.0])
def test_a_prompt_does_not_wait_for_sequences_that_are_late(most: int, late_s: float) -> None:
    now = [0.0]
    scheduler = decoding_since_long(now, 6, most)
    scheduler.add(b"prompt", 1000, 1001, num_stages=NUM_STAGES)
    now[0] += late_s
    scheduler.come(b"prompt", 1000)
    assert scheduler.step_in_s == 0
    [chunk] = scheduler.step()
    assert chunk.sequence_id == b"prompt"


def test_without_decoding_sequences_prompts_wait_for_nothing() -> None:
    scheduler = ClockedScheduler(100, 100, 8, samples=False, clock=lambda: 0.0)
    assert scheduler.step_in_s is None
    scheduler.add(b"prompt", 1000, 1001, num_stages=NUM_STAGES)
    scheduler.come(b"prompt", 1000)
    assert scheduler.step_in_s == 0
    assert [chunk.num_tokens for chunk in scheduler.step()] == [100]


@given(
    fixed_s=st.floats(1e-4, 0.1),
    decode_token_s=st.floats(0, 0.002),
    prompt_token_s=st.floats(0, 0.01),
    most=st.integers(1, 512),
    prompts_per_decoding=st.floats(0, 4),
)
def test_prompts_get_what_a_step_can_take_in_twice_its_time(
    fixed_s: float, decode_token_s: float, prompt_token_s: float, most: int, prompts_per_decoding: float
) -> None:
    """A machine whose steps take so long, plus so much for each token. Where more wait for their first token than for
    their next, it is more."""
    times = StepTimes()
    step_s = fixed_s + 8 * decode_token_s
    assert num_tokens_in(times, beside_s(times, 8, prompts_per_decoding), most) == min(FIRST_TOKENS, most)
    for _ in range(50):
        times.note(8, 0, step_s)
        number = num_tokens_in(times, beside_s(times, 8, prompts_per_decoding), most)
        times.note(8, number, step_s + number * prompt_token_s)
    seconds = beside_s(times, 8, prompts_per_decoding)
    assert seconds == pytest.approx(max(SHARE, prompts_per_decoding) * step_s)
    found = num_tokens_in(times, seconds, most)
    assert 1 <= found <= most
    assert found <= max(MIN_TOKENS, seconds / max(prompt_token_s, 1e-9)) + 1e-6
    if prompt_token_s * most <= seconds / 2:
        assert found == most


@given(free_s=st.floats(-1, 1), prompts_per_decoding=st.floats(0, 4))
def test_prompts_alone_are_done_before_the_next_group_is_back(free_s: float, prompts_per_decoding: float) -> None:
    times = StepTimes()
    for number in (1, 8):
        times.note(number, 0, 0.01)
    seconds = alone_s(times, free_s, 8, prompts_per_decoding)
    if prompts_per_decoding <= SHARE:
        assert 0.01 + seconds <= max(free_s, 0.01 + 0.7 * free_s)
    else:
        assert seconds >= 0.01 * prompts_per_decoding


def test_where_steps_take_one_sequence_a_prompts_turn_is_worth_a_step() -> None:
    """A stage that does not pack: the prompt's step takes the others' time whatever is in it."""
    now = [0.0]
    scheduler = ClockedScheduler(512, 256, 1, samples=False, clock=lambda: now[0])
    decoding = NAMES[:3]
    for name in (*decoding, b"prompt"):
        scheduler.add(name, 200, 1000, num_stages=NUM_STAGES)
    for name in decoding:
        scheduler.come(name, 200)
    prompts = list[Chunk]()
    for number in range(120):
        if number > 3:
            scheduler.come(decoding[number % 3], 1)  # the others are away, the next is almost back
        if number == 60:
            scheduler.come(b"prompt", 200)
        for _ in range(2):
            if chunks := scheduler.step():
                seconds = 0.01 + 0.001 * sum(chunk.num_prompt_tokens for chunk in chunks)
                scheduler.ran(chunks, seconds)
                prompts += [chunk for chunk in chunks if chunk.sequence_id == b"prompt"]
        now[0] += 0.02
    assert sum(chunk.num_tokens for chunk in prompts) == 200
    assert all(chunk.num_tokens > MIN_TOKENS for chunk in prompts[:-1])


def measured(prompt_token_s: float = 0.0005, step_s: float = 0.01) -> StepTimes:
    times = StepTimes()
    times.note(1, 0, step_s)
    times.note(1, 100, step_s + 100 * prompt_token_s)
    return times


@given(prompt_token_s=st.floats(1e-6, 0.1), step_s=st.floats(1e-4, 1), most=st.integers(1, 4096))
def test_a_piece_is_large_beside_what_every_step_takes(prompt_token_s: float, step_s: float, most: int) -> None:
    num_tokens, more = piece(measured(prompt_token_s, step_s), most)
    assert 1 <= num_tokens <= num_tokens + more <= most
    assert more <= MORE * num_tokens
    if MIN_TOKENS < num_tokens < most:
        assert num_tokens * prompt_token_s == pytest.approx(PIECE_STEPS * step_s, abs=1.001 * prompt_token_s)


def test_before_anything_was_measured_a_piece_is_all_that_is_allowed() -> None:
    assert piece(StepTimes(), 512) == (512, 0)


def test_prompts_rush_while_more_wait_than_decode_and_until_none_does() -> None:
    rush, times = Rush(), measured()
    assert not rush.is_on(times, 1, 64, 1)
    assert rush.is_on(times, 3, 3 * 64, 2)
    assert rush.is_on(times, 1, 64, 4)
    assert not rush.is_on(times, 0, 0, 5)
    assert not rush.is_on(times, 1, 64, 4)


def test_prompts_that_take_long_do_not_rush() -> None:
    rush, times = Rush(), measured()
    assert not rush.is_on(times, 3, 2000, 1)
    assert rush.is_on(times, 2, 900, 2)  # what is left of them


def test_prompts_that_come_together_are_done_in_few_steps_and_whole() -> None:
    now = [0.0]
    scheduler = decoding_since_long(now, 1)
    now[0] += 0.02
    for number in range(6):
        scheduler.add(bytes([number, number]), 64, 1000, num_stages=NUM_STAGES)
        scheduler.come(bytes([number, number]), 64)
    steps = list[list[Chunk]]()
    while scheduler.has_waiting:
        assert scheduler.step_in_s == 0
        steps.append(scheduler.step())
        seconds = 0.01 + 0.001 * sum(chunk.num_prompt_tokens for chunk in steps[-1])
        scheduler.ran(steps[-1], seconds)
        now[0] += seconds
    assert [[chunk.num_tokens for chunk in step] for step in steps] == [[64]] * 6  # 60 tokens take six steps' time


def test_a_sequence_that_is_back_goes_with_prompts_that_rush() -> None:
    now = [0.0]
    scheduler = decoding_since_long(now, 2)
    for name in (b"p", b"q", b"r"):
        scheduler.add(name, 64, 1000, num_stages=NUM_STAGES)
        scheduler.come(name, 64)
    now[0] += 0.09
    scheduler.come(NAMES[0], 1)  # the other one, which it would wait for, is not back
    assert scheduler.step_in_s == 0
    assert [chunk.num_prompt_tokens for chunk in scheduler.step()] == [0, 64]


def test_prompts_that_rush_take_no_more_than_is_allowed_beside_others() -> None:
    now = [0.0]
    scheduler = decoding_since_long(now, 1, most=20)
    for name in (b"p", b"q", b"r"):
        scheduler.add(name, 64, 1000, num_stages=NUM_STAGES)
        scheduler.come(name, 64)
    scheduler.come(NAMES[0], 1)
    for _ in range(3):
        assert sum(chunk.num_prompt_tokens for chunk in scheduler.step()) <= 20


def test_one_prompt_does_not_rush_past_those_that_decode() -> None:
    now = [0.0]
    scheduler = decoding_since_long(now, 6)
    scheduler.add(b"prompt", 64, 1000, num_stages=NUM_STAGES)
    now[0] += 0.095
    scheduler.come(b"prompt", 64)
    for name in NAMES[:6]:
        scheduler.come(name, 1)
    *_, chunk = scheduler.step()
    assert chunk.num_prompt_tokens <= 10
