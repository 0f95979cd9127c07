"""The planning room's errors: one base class; each holds the values that its handler needs.

* PlanningError
  * NoPlan
  * TooManyStages
"""

from __future__ import annotations


class PlanningError(Exception):
    """Base of everything this room raises on purpose."""


class NoPlan(PlanningError):
    """The free nodes do not cover all layers. `uncovered` names the ranges [first, end) that nobody free holds."""

    def __init__(self, num_layers: int, uncovered: list[tuple[int, int]]) -> None:
        self.uncovered = uncovered
        super().__init__(f"no plan for {num_layers} layers: nobody free holds {uncovered}")


class TooManyStages(PlanningError):
    """The only plan that is left has more stages than a job may have."""

    def __init__(self, num_stages: int, most: int) -> None:
        super().__init__(f"only a plan of {num_stages} stages is left, at most {most} are served")
