"""How sessions that decode find together, and what prompts beside them get: pure Python, on a clock of the tests."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.budget import FIRST_TOKENS, MIN_TOKENS, SHARE, alone_s, beside_s, num_tokens_in
from worker.engine.groups import Groups
from worker.engine.scheduler import Chunk, Scheduler
from worker.engine.times import StepTimes

NUM_STAGES = 3


@dataclass
class Ring:
    """Stages that take what waits for them, on `num_processors` that all share: a step's time goes on while it has
    one. The first stage is a scheduler's, the others run whatever came in one step."""

    num_processors: int
    fixed_s: float = 0.01
    row_s: float = 0.001
    delay_s: float = 0.0
    now: float = 0.0
    sizes: list[int] = field(default_factory=list)
    rounds: dict[bytes, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(512, 256, 32, samples=False, clock=lambda: self.now)
        self.waiting: list[list[list[bytes]]] = [[] for _ in range(NUM_STAGES)]
        self.steps: list[tuple[int, list[bytes], list[Chunk], float, float] | None] = [None] * NUM_STAGES
        self.on_their_way: list[tuple[float, int, list[bytes]]] = []
        self.next_position: dict[bytes, int] = {}

    def join(self, *names: bytes) -> None:
        """Sessions with a prompt of one token."""
        for name in names:
            self.scheduler.add(name, 1, 10**6, num_stages=NUM_STAGES)
            self.next_position[name] = 0
            self._feed(name)

    def run(self, seconds: float, tick_s: float = 0.0005) -> list[int]:
        """The sizes of the first stage's steps meanwhile."""
        self.sizes.clear()
        until = self.now + seconds
        while self.now < until:
            self.now += tick_s
            self._arrive()
            self._begin()
            running = [stage for stage in range(NUM_STAGES) if self.steps[stage] is not None]
            share = min(1.0, self.num_processors / max(1, len(running)))
            for stage in running:
                self._go_on(stage, tick_s * share)
        return self.sizes

    def _feed(self, name: bytes) -> None:
        self.scheduler.feed(name, 1)
        self.next_position[name] += 1
        self.rounds.setdefault(name, []).append(self.now)

    def _arrive(self) -> None:
        arrived = [item for item in self.on_their_way if item[0] <= self.now]
        self.on_their_way = [item for item in self.on_their_way if item[0] > self.now]
        for _, stage, names in arrived:
            if stage:
                self.waiting[stage].append(names)
            else:
                for name in names:
                    self._feed(name)

    def _begin(self) -> None:
        if self.steps[0] is None and self.scheduler.step_in_s == 0:
            chunks = self.scheduler.schedule()
            self._start(0, [chunk.session_id for chunk in chunks], chunks)
            if not chunks[0].num_prompt_tokens:
                self.sizes.append(len(chunks))
        for stage in range(1, NUM_STAGES):
            if self.steps[stage] is None and self.waiting[stage]:
                names = [name for group in self.waiting[stage] for name in group]
                self.waiting[stage].clear()
                self._start(stage, names, [])

    def _start(self, stage: int, names: list[bytes], chunks: list[Chunk]) -> None:
        self.steps[stage] = stage, names, chunks, self.fixed_s + self.row_s * len(names), self.now

    def _go_on(self, stage: int, seconds: float) -> None:
        step = self.steps[stage]
        assert step is not None
        _, names, chunks, left_s, began = step
        if left_s > seconds:
            self.steps[stage] = stage, names, chunks, left_s - seconds, began
            return
        self.steps[stage] = None
        if chunks:
            self.scheduler.note_time(chunks, self.now - began + 1e-9, self.fixed_s + self.row_s * len(names))
        self.on_their_way.append((self.now + self.delay_s, (stage + 1) % NUM_STAGES, names))


NAMES = [bytes([number]) for number in range(8)]


def apart(ring: Ring) -> None:
    """Sessions that begin one by one."""
    for name in NAMES:
        ring.join(name)
        ring.run(0.007)


def test_sessions_that_began_apart_find_together() -> None:
    """One processor for all stages: whatever is not in one step waits for it."""
    ring = Ring(num_processors=1)
    apart(ring)
    ring.run(3)
    assert set(ring.run(1)) == {8}


def test_stages_of_their_own_all_have_a_group_where_rows_take_time() -> None:
    ring = Ring(num_processors=NUM_STAGES, fixed_s=0.002, row_s=0.004)
    apart(ring)
    ring.run(3)
    assert set(ring.run(1)) <= {2, 3}


def test_one_group_is_enough_where_rows_take_none() -> None:
    ring = Ring(num_processors=NUM_STAGES, fixed_s=0.01, row_s=0.0)
    apart(ring)
    ring.run(3)
    assert set(ring.run(1)) == {8}


@given(
    num_processors=st.integers(1, 3),
    fixed_s=st.floats(0.001, 0.02),
    row_s=st.floats(0, 0.005),
    delay_s=st.sampled_from([0.0, 0.025]),
)
def test_nobody_waits_for_long(num_processors: int, fixed_s: float, row_s: float, delay_s: float) -> None:
    """However steps and links are, every session goes on, about as often as the others."""
    ring = Ring(num_processors, fixed_s, row_s, delay_s)
    apart(ring)
    ring.run(1, tick_s=0.002)
    before = {name: len(rounds) for name, rounds in ring.rounds.items()}
    ring.run(1.5, tick_s=0.002)
    made = [len(ring.rounds[name]) - before[name] for name in NAMES]
    assert min(made) >= 0.6 * max(made) - 1
    slowest_s = NUM_STAGES * (fixed_s + 8 * row_s + 0.004) * NUM_STAGES / num_processors + NUM_STAGES * delay_s
    assert min(made) >= 1.5 / (2 * slowest_s) - 1


def test_who_stays_away_is_not_waited_for() -> None:
    now = [0.0]
    groups = Groups(StepTimes(), lambda: now[0])
    for name in NAMES[:6]:
        groups.add(name, NUM_STAGES)
    groups.step(NAMES[:6], with_prompts=False)
    now[0] = 0.1
    groups.come_back(NAMES[0])
    assert groups.wait_s(NAMES[:1]) == pytest.approx(0.1 / 3)  # a third of a round, for one more
    now[0] = 0.21
    assert groups.wait_s(NAMES[:1]) == 0
    assert groups.largest(NAMES[:1]) == 1
    for name in NAMES[1:3]:
        groups.come_back(name)
    groups.remove(NAMES[1])
    assert groups.wait_s([NAMES[0], NAMES[2]]) == 0


def test_who_comes_back_after_long_makes_nobody_wait_longer() -> None:
    now = [0.0]
    groups = Groups(StepTimes(), lambda: now[0])
    for name in NAMES[:6]:
        groups.add(name, NUM_STAGES)
    for _ in range(20):
        groups.step(NAMES[1:6], with_prompts=False)
        now[0] += 0.1
        for name in NAMES[1:6]:
            groups.come_back(name)
    groups.step(NAMES[:6], with_prompts=False)
    now[0] += 30
    groups.come_back(NAMES[0])
    assert groups.wait_s(NAMES[:1]) == 0  # the others are away too long
    groups.step(NAMES[:6], with_prompts=False)
    now[0] += 0.1
    groups.come_back(NAMES[0])
    assert 0 < groups.wait_s(NAMES[:1]) < 0.05


def test_sessions_of_later_stages_wait_for_nobody() -> None:
    now = [0.0]
    groups = Groups(StepTimes(), lambda: now[0])
    for name in NAMES:
        groups.add(name, 1)
    groups.step(NAMES, with_prompts=False)
    now[0] = 0.1
    groups.come_back(NAMES[0])
    assert groups.wait_s(NAMES[:1]) == 0
    for name in NAMES[1:]:
        groups.come_back(name)
    assert groups.largest(NAMES) == 8


def decoding_since_long(now: list[float], num_sessions: int, most: int = 256) -> Scheduler:
    """One group of sessions with a round of 0.1 s, steps of 0.01 s, 0.001 s for a prompt token; all are away."""
    scheduler = Scheduler(512, most, 8, samples=False, clock=lambda: now[0])
    names = NAMES[:num_sessions]
    scheduler.add(b"first", 400, 401, num_stages=NUM_STAGES)
    for name in names:
        scheduler.add(name, 1, 1000, num_stages=NUM_STAGES)
        scheduler.feed(name, 1)
    scheduler.note_time(scheduler.schedule(), 0.02, 0.02)
    for number in range(50):
        now[0] += 0.1
        for name in names:
            scheduler.feed(name, 1)
        if 3 <= number < 23:
            scheduler.feed(b"first", 20)
        while chunks := scheduler.schedule():
            seconds = 0.01 + 0.001 * sum(chunk.num_prompt_tokens for chunk in chunks)
            scheduler.note_time(chunks, seconds, seconds)
    scheduler.remove(b"first")
    return scheduler


def test_a_prompt_runs_alone_while_all_groups_are_away_as_far_as_there_is_time() -> None:
    now = [0.0]
    scheduler = decoding_since_long(now, 6)
    scheduler.add(b"prompt", 1000, 1001, num_stages=NUM_STAGES)
    scheduler.feed(b"prompt", 1000)
    now[0] += 0.02
    assert scheduler.step_in_s == 0
    [chunk] = scheduler.schedule()
    assert 10 <= chunk.num_tokens <= 80  # milliseconds until the sessions are back
    now[0] += 0.075
    assert 0 < (scheduler.step_in_s or 0) < 0.1
    for name in NAMES[:6]:
        scheduler.feed(name, 1)
    assert scheduler.step_in_s == 0
    assert all(not chunk.num_prompt_tokens for chunk in scheduler.schedule())  # it had its turn alone


def test_a_prompt_goes_with_a_group_where_there_is_no_time_for_it_alone() -> None:
    now = [0.0]
    scheduler = decoding_since_long(now, 6)
    scheduler.add(b"prompt", 1000, 1001, num_stages=NUM_STAGES)
    now[0] += 0.09
    scheduler.feed(b"prompt", 1000)
    assert 0 < (scheduler.step_in_s or 0) < 0.1
    for name in NAMES[:6]:
        scheduler.feed(name, 1)
    *_, chunk = scheduler.schedule()
    assert MIN_TOKENS <= chunk.num_prompt_tokens <= 10  # milliseconds of a step without


@pytest.mark.parametrize("most", [1, 4, 256])
@pytest.mark.parametrize("late_s", [0.13, 30.0])
def test_a_prompt_does_not_wait_for_sessions_that_are_late(most: int, late_s: float) -> None:
    now = [0.0]
    scheduler = decoding_since_long(now, 6, most)
    scheduler.add(b"prompt", 1000, 1001, num_stages=NUM_STAGES)
    now[0] += late_s
    scheduler.feed(b"prompt", 1000)
    assert scheduler.step_in_s == 0
    [chunk] = scheduler.schedule()
    assert chunk.session_id == b"prompt"


def test_without_decoding_sessions_prompts_wait_for_nothing() -> None:
    scheduler = Scheduler(100, 100, 8, samples=False, clock=lambda: 0.0)
    assert scheduler.step_in_s is None
    scheduler.add(b"prompt", 1000, 1001, num_stages=NUM_STAGES)
    scheduler.feed(b"prompt", 1000)
    assert scheduler.step_in_s == 0
    assert [chunk.num_tokens for chunk in scheduler.schedule()] == [100]


@given(st.dictionaries(st.integers(1, 32), st.floats(0.001, 1), min_size=1), st.integers(1, 40))
def test_times_lie_between_those_of_steps_that_were_tried(tried: dict[int, float], number: int) -> None:
    times = StepTimes()
    for num_sessions, seconds in tried.items():
        times.note(num_sessions, 0, seconds)
    tried = {size: min(tried[more] for more in tried if more >= size) for size in tried}  # fewer take no longer
    found = times.decode_s(number)
    if number in tried:
        assert found == pytest.approx(tried[number])
    assert found <= max(tried.values()) * (1 + 1e-9)
    if number >= min(tried):
        assert found >= min(tried.values()) * (1 - 1e-9)
    else:
        assert found == pytest.approx(tried[min(tried)] * number / min(tried))


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


def test_where_steps_take_one_session_a_prompts_turn_is_worth_a_step() -> None:
    """A stage that does not pack: the prompt's step takes the others' time whatever is in it."""
    now = [0.0]
    scheduler = Scheduler(512, 256, 1, samples=False, clock=lambda: now[0])
    decoding = NAMES[:3]
    for name in (*decoding, b"prompt"):
        scheduler.add(name, 200, 1000, num_stages=NUM_STAGES)
    for name in decoding:
        scheduler.feed(name, 200)
    prompts = list[Chunk]()
    for number in range(120):
        if number > 3:
            scheduler.feed(decoding[number % 3], 1)  # the others are away, the next is almost back
        if number == 60:
            scheduler.feed(b"prompt", 200)
        for _ in range(2):
            if chunks := scheduler.schedule():
                seconds = 0.01 + 0.001 * sum(chunk.num_prompt_tokens for chunk in chunks)
                scheduler.note_time(chunks, seconds, seconds)
                prompts += [chunk for chunk in chunks if chunk.session_id == b"prompt"]
        now[0] += 0.02
    assert sum(chunk.num_tokens for chunk in prompts) == 200
    assert all(chunk.num_tokens > MIN_TOKENS for chunk in prompts[:-1])


def test_times_are_of_sessions_whatever_they_were_fed_at_once() -> None:
    scheduler = Scheduler(512, 256, 8, samples=False)
    scheduler.add(b"a", 1, 1000)
    for _ in range(2):
        scheduler.feed(b"a", 1)
        scheduler.note_time(scheduler.schedule(), 0.01, 0.01)
    scheduler.feed(b"a", 300)
    scheduler.note_time(scheduler.schedule(), 0.05, 0.05)
    times = StepTimes()
    times.note(1, 0, 0.01)
    times.note(1, 0, 0.05)
    assert scheduler._times.decode_s(300) == times.decode_s(1)
