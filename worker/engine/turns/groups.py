"""In how many groups decoding sequences follow each other, and who waits for whom. Pure Python.

Sequences that met in one step come back together. One group of them keeps one stage busy at a time, so as many groups
as stages keep all busy; but each step of theirs is smaller, and a step of two rows may take as long as one of eight.
And where stages share processors, groups wait for each other. So it is measured: what a step takes; and with so many
groups on their way, how much of its time a step has a processor, and what a round takes beside the steps.

Sequences start one by one and would stay apart for ever: those that are back before their group is complete wait for
more, at most the time between two groups, and go on with them.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from declai.worker.engine.turns.times import Mean, StepTimes

SMOOTHING = 0.1
# Fewer groups that do nearly as much are better: they leave processors for others.
AS_GOOD = 0.97
# What was seen with another number of groups holds no more after some thousand steps: it is tried again.
FORGETTING = 0.0005
# Who stays away for longer has stopped, or is slow: nobody waits for it.
MOST_ROUNDS_AWAY = 2.0
LATE = 0.25  # of a round
_ROUNDS_KEPT = 10
_ROUNDING = 1e-9


@dataclass(eq=False)
class _Step:
    """When a group left, of so many sequences, of which some are away still; and the groups on their way then."""

    began: float
    num_sequences: int
    num_on_their_way: int
    num_away: int = 0


class Groups:
    """Learns the time of a round, from a sequence's step to its next token's arrival, and the processors' load."""

    def __init__(self, times: StepTimes) -> None:
        self._times = times
        self._processor_share: dict[int, float] = {}
        self._round_s: float | None = None
        self._quiet_round_s: float | None = None  # without prompts
        self._between: dict[int, Mean] = {}  # of quiet rounds with so many groups, what is not the stages' steps
        self._stepped = self._prompts_stepped = -math.inf
        self._num_on_their_way = 1
        self._num_stages: dict[bytes, int] = {}
        self._away: dict[bytes, _Step] = {}
        self._num_groups_away = 0
        self._back: dict[bytes, float] = {}

    def add(self, sequence_id: bytes, num_stages: int) -> None:
        """`num_stages`: that the sequence's tokens go through until it is back; 1 for one that nobody waits for."""
        self._num_stages[sequence_id] = num_stages

    def step(self, sequence_ids: Collection[bytes], now: float, *, with_prompts: bool) -> None:
        """A step begins, with the next tokens of these sequences, and prompts perhaps."""
        self._stepped = now
        if with_prompts:
            self._prompts_stepped = self._stepped
        for sequence_id in sequence_ids:
            self._back.pop(sequence_id, None)
            self._take_back(sequence_id)
        self._num_on_their_way = 1 + self._num_groups_away
        step = _Step(self._stepped, len(sequence_ids), self._num_on_their_way, len(sequence_ids))
        self._num_groups_away += bool(sequence_ids)
        self._away |= dict.fromkeys(sequence_ids, step)

    def come_back(self, sequence_id: bytes, now: float) -> None:
        """The sequence has another token to be computed."""
        self._back.setdefault(sequence_id, now)
        num_on_their_way = self._num_groups_away
        if (step := self._take_back(sequence_id)) is not None:
            self._round_s = _smooth(self._round_s, now - step.began)
            if step.began > self._prompts_stepped:
                self._quiet_round_s = _smooth(self._quiet_round_s, now - step.began)
                if step.num_on_their_way == num_on_their_way:  # all the way, as it seems
                    self._note_between(step, min(now - step.began, MOST_ROUNDS_AWAY * self._quiet_round_s), sequence_id)

    def remove(self, sequence_id: bytes) -> None:
        self._take_back(sequence_id)
        for books in (self._num_stages, self._back):
            books.pop(sequence_id, None)

    def note_processor_share(self, share: float) -> None:
        """How much of the last step's time the step really had a processor, from 0 to 1.

        While prompts go round with the groups they tell nothing of the groups.
        """
        if self._stepped <= self._prompts_stepped + (self._round_s or 0.0):
            return
        for number, known in self._processor_share.items():
            self._processor_share[number] = known + (1.0 - known) * FORGETTING
        known = self._share(self._num_on_their_way)
        self._processor_share[self._num_on_their_way] = known + (share - known) * SMOOTHING

    def largest(self, waiting: Collection[bytes], now: float) -> int:
        """The most sequences for a step, of those that wait and those that are away."""
        return math.ceil(self._size(self._present(waiting, now)) - _ROUNDING)

    def wait_s(self, waiting: Collection[bytes], now: float) -> float:
        """How long those that wait should do so for others."""
        present = self._present(waiting, now)
        size = self._size(present)
        follows = any(self._num_stages[sequence_id] > 1 for sequence_id in present)
        if self._round_s is None or not follows or len(waiting) >= math.floor(size + _ROUNDING):
            return 0.0
        since = min(self._back.get(sequence_id, self._stepped) for sequence_id in waiting)
        return max(0.0, since + self._round_s * size / len(present) - now)

    def free_s(self, now: float) -> float:
        """Seconds until the next group is back if nothing holds it up; endless when none is away."""
        return self._next_left(now) + (self._quiet_round_s or 0.0) - now

    def late_in_s(self, now: float) -> float:
        """Seconds until the next group is so late that nobody should wait for it; 0 when none is away."""
        late_in_s = self._next_left(now) + (1 + LATE) * (self._round_s or 0.0) - now
        return max(0.0, late_in_s) if late_in_s < math.inf else 0.0

    def _take_back(self, sequence_id: bytes) -> _Step | None:
        """The step with which the sequence left, if it is away."""
        if (step := self._away.pop(sequence_id, None)) is not None:
            step.num_away -= 1
            self._num_groups_away -= not step.num_away
        return step

    def _next_left(self, now: float) -> float:
        """When the group left that is back next."""
        return min((self._away[name].began for name in self._present((), now) if name in self._away), default=math.inf)

    def _present(self, waiting: Collection[bytes], now: float) -> list[bytes]:
        if self._round_s is None:
            return [*waiting, *self._away]
        earliest = now - MOST_ROUNDS_AWAY * self._round_s
        return [*waiting, *(sequence_id for sequence_id, step in self._away.items() if step.began > earliest)]

    def _size(self, present: Collection[bytes]) -> float:
        """Sequences in a group: the largest that does nearly as much as the best."""
        if not present:
            return 0.0
        num_stages = max(self._num_stages[sequence_id] for sequence_id in present)
        sizes = [len(present) / number for number in range(1, min(len(present), num_stages) + 1)]
        rounds = [self._expected_round_s(num_stages, number, size) for number, size in enumerate(sizes, 1)]
        return next(size for size, round_s in zip(sizes, rounds, strict=True) if AS_GOOD * round_s <= min(rounds))

    def _expected_round_s(self, num_stages: int, num_groups: int, size: float) -> float:
        """With so many groups of this size; before any step was timed, as if each row took equally long."""
        steps_s = num_stages * (self._times.decode_s(math.ceil(size - _ROUNDING)) or size)
        between = self._between.get(num_groups)
        return steps_s / self._share(num_groups) + (between.value if between else 0.0)

    def _note_between(self, step: _Step, round_s: float, sequence_id: bytes) -> None:
        part = 1 / step.num_sequences  # of a round: all of them see it
        least_s = min((between.value for between in self._between.values()), default=0.0)
        for between in self._between.values():
            between.value -= (between.value - least_s) * FORGETTING * part
        steps_s = self._num_stages[sequence_id] * self._times.decode_s(step.num_sequences)
        between_s = max(0.0, round_s - steps_s / self._share(step.num_on_their_way))
        self._between.setdefault(step.num_on_their_way, Mean(_ROUNDS_KEPT)).note(between_s, part)

    def _share(self, num_on_their_way: int) -> float:
        return self._processor_share.get(num_on_their_way, 1.0)


def _smooth(known: float | None, seconds: float) -> float:
    """Of a sequence that stayed away for too long only what it was waited for: it tells nothing of the others."""
    if known is None:
        return seconds
    return known + (min(seconds, MOST_ROUNDS_AWAY * known) - known) * SMOOTHING
