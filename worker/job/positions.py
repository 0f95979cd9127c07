"""How far a job has come at this stage: one owner of its positions. Pure Python, no clock."""

from __future__ import annotations

from enum import IntEnum

from declai.worker.errors import WorkerError


class PositionGap(WorkerError):
    """Positions that do not continue a mark, or would overtake the mark before it."""


class Mark(IntEnum):
    """What has happened to a position, in this order. A position that has one mark has all before it."""

    RECEIVED = 0  # its input came and was fed to the engine
    COMPUTED = 1  # the engine handed out what came of it
    COMMITTED = 2  # that is part of what the receipt will sign
    SENT = 3  # it is on its way to the next stage as that is now: a new node there has to be sent all again


class Positions:
    """Four counts from position 0 on. At the last stage a position is computed when what is drawn after it is known."""

    def __init__(self) -> None:
        self._counts = [0] * len(Mark)

    @property
    def received(self) -> int:
        return self._counts[Mark.RECEIVED]

    @property
    def computed(self) -> int:
        return self._counts[Mark.COMPUTED]

    @property
    def committed(self) -> int:
        return self._counts[Mark.COMMITTED]

    @property
    def sent(self) -> int:
        return self._counts[Mark.SENT]

    def check(self, mark: Mark, first_position: int, num_positions: int) -> None:
        """Raises PositionGap where `advance` would."""
        counts, end = self._counts, first_position + num_positions
        if first_position != counts[mark] or num_positions < 1:
            raise PositionGap(f"{num_positions} positions from {first_position} on, {counts[mark]} are {mark.name}")
        if mark and end > counts[mark - 1]:
            raise PositionGap(f"position {end} is {mark.name} when {counts[mark - 1]} are {Mark(mark - 1).name}")

    def advance(self, mark: Mark, first_position: int, num_positions: int) -> None:
        """Give so many more positions a mark. Raises PositionGap, and changes nothing, unless they come next."""
        self.check(mark, first_position, num_positions)
        self._counts[mark] = first_position + num_positions

    def truncate(self, position: int, since: Mark = Mark.RECEIVED) -> None:
        """Take a mark, and those after it, back from all positions from `position` on."""
        for mark in range(since, len(Mark)):
            self._counts[mark] = min(self._counts[mark], position)
