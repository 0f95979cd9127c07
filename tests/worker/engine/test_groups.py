"""How sequences that decode find together: pure Python, on a clock of the tests."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from declai.worker.engine.turns.groups import Groups
from declai.worker.engine.turns.step import Chunk
from declai.worker.engine.turns.times import StepTimes
from tests.support.turns import ClockedScheduler

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
        self.scheduler = ClockedScheduler(512, 256, 32, samples=False, clock=lambda: self.now)
        self.waiting: list[list[list[bytes]]] = [[] for _ in range(NUM_STAGES)]
        self.steps: list[tuple[int, list[bytes], list[Chunk], float, float] | None] = [None] * NUM_STAGES
        self.on_their_way: list[tuple[float, int, list[bytes]]] = []
        self.next_position: dict[bytes, int] = {}

    def join(self, *names: bytes) -> None:
        """Sequences with a prompt of one token."""
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
        self.scheduler.come(name, 1)
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
            chunks = self.scheduler.step()
            self._start(0, [chunk.sequence_id for chunk in chunks], chunks)
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
            self.scheduler.ran(chunks, self.now - began + 1e-9, self.fixed_s + self.row_s * len(names))
        self.on_their_way.append((self.now + self.delay_s, (stage + 1) % NUM_STAGES, names))


NAMES = [bytes([number]) for number in range(8)]


def apart(ring: Ring) -> None:
    """Sequences that begin one by one."""
    for name in NAMES:
        ring.join(name)
        ring.run(0.007)


def test_sequences_that_began_apart_find_together() -> None:
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
    """However steps and links are, every sequence goes on, about as often as the others."""
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
    groups = Groups(StepTimes())
    for name in NAMES[:6]:
        groups.add(name, NUM_STAGES)
    groups.step(NAMES[:6], now[0], with_prompts=False)
    now[0] = 0.1
    groups.come_back(NAMES[0], now[0])
    assert groups.wait_s(NAMES[:1], now[0]) == pytest.approx(0.1 / 3)  # a third of a round, for one more
    now[0] = 0.21
    assert groups.wait_s(NAMES[:1], now[0]) == 0
    assert groups.largest(NAMES[:1], now[0]) == 1
    for name in NAMES[1:3]:
        groups.come_back(name, now[0])
    groups.remove(NAMES[1])
    assert groups.wait_s([NAMES[0], NAMES[2]], now[0]) == 0


def test_who_comes_back_after_long_makes_nobody_wait_longer() -> None:
    now = [0.0]
    groups = Groups(StepTimes())
    for name in NAMES[:6]:
        groups.add(name, NUM_STAGES)
    for _ in range(20):
        groups.step(NAMES[1:6], now[0], with_prompts=False)
        now[0] += 0.1
        for name in NAMES[1:6]:
            groups.come_back(name, now[0])
    groups.step(NAMES[:6], now[0], with_prompts=False)
    now[0] += 30
    groups.come_back(NAMES[0], now[0])
    assert groups.wait_s(NAMES[:1], now[0]) == 0  # the others are away too long
    groups.step(NAMES[:6], now[0], with_prompts=False)
    now[0] += 0.1
    groups.come_back(NAMES[0], now[0])
    assert 0 < groups.wait_s(NAMES[:1], now[0]) < 0.05


def test_sequences_of_later_stages_wait_for_nobody() -> None:
    now = [0.0]
    groups = Groups(StepTimes())
    for name in NAMES:
        groups.add(name, 1)
    groups.step(NAMES, now[0], with_prompts=False)
    now[0] = 0.1
    groups.come_back(NAMES[0], now[0])
    assert groups.wait_s(NAMES[:1], now[0]) == 0
    for name in NAMES[1:]:
        groups.come_back(name, now[0])
    assert groups.largest(NAMES, now[0]) == 8


@pytest.mark.parametrize(("between_s", "size"), [(0.0, 4), (0.02, 8)])
def test_what_a_round_takes_beside_its_steps_speaks_for_fewer_groups(between_s: float, size: int) -> None:
    """Two groups' steps take four fifths of the time of one's, but have a processor for 85 % of their time alone. What
    is between the steps is not less for half as many sequences."""
    now, step_s = [0.0], {4: 0.008, 8: 0.0102}
    times = StepTimes()
    groups = Groups(times)
    for name in NAMES:
        groups.add(name, 2)
    for _ in range(50):
        for waiting, away, share in ((NAMES, [], 1.0), (NAMES[:4], NAMES[4:], 0.85)):
            for names in (away, waiting):
                groups.step(names, now[0], with_prompts=False)
                groups.note_processor_share(share if names is waiting else 1.0)
            times.note(len(waiting), 0, step_s[len(waiting)])
            now[0] += (2 * step_s[len(waiting)] + between_s) / share
            for name in NAMES:
                groups.come_back(name, now[0])
    assert groups.largest(NAMES, now[0]) == size


def test_a_round_on_which_others_followed_tells_nothing_of_one_group() -> None:
    now = [0.0]
    times = StepTimes()
    groups = Groups(times)
    for size, seconds in ((4, 0.008), (8, 0.010)):
        times.note(size, 0, seconds)
    for name in NAMES:
        groups.add(name, 2)

    def go_round(names: list[bytes], seconds: float) -> None:
        now[0] += seconds
        for name in names:
            groups.come_back(name, now[0])

    for _ in range(20):
        groups.step(NAMES, now[0], with_prompts=False)
        go_round(NAMES, 0.030)
        groups.step(NAMES[:4], now[0], with_prompts=False)
        for _ in range(2):  # either leaves while the other one is away, and is back before it
            groups.step(NAMES[4:], now[0], with_prompts=False)
            go_round(NAMES[:4], 0.035)
            groups.step(NAMES[:4], now[0], with_prompts=False)
            go_round(NAMES[4:], 0.035)
        go_round(NAMES[:4], 0.0)
    assert groups.largest(NAMES, now[0]) == 8
    for _ in range(50):
        groups.step(NAMES[:4], now[0], with_prompts=False)
        groups.step(NAMES[4:], now[0], with_prompts=False)
        go_round(NAMES[:4], 0.055)  # for the others were in their way
        for name in NAMES[4:]:
            groups.remove(name)
            groups.add(name, 2)
    assert groups.largest(NAMES, now[0]) == 8
