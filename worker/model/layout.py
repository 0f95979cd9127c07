"""How a stage's cache is laid out. Pure Python: the memory is `packed.Pool`'s.

The memory is one long list of rows of one size. A row is a token's keys and values of one layer. All rows of one
sequence for one layer are a lane, of whole blocks. A lane is as long as the sequence. Only where a window slides, the
lane is a ring, a window and a step long, in which new tokens overwrite those that nobody needs any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from declai.worker.model.architecture import LayerCache

Run = tuple[int, int]
BLOCK_TOKENS = 16


@dataclass(frozen=True)
class Lane:
    """The slots of one lane, as runs of (first slot, number of slots). Position p lies in slot number p, modulo all."""

    runs: tuple[Run, ...]

    @cached_property
    def num_slots(self) -> int:
        return sum(length for _, length in self.runs)

    def cut(self, first: int, end: int) -> tuple[Run, ...]:
        """Where the positions [first, end) lie, in order. There must not be more of them than slots."""
        begin = first % self.num_slots
        rest = begin + end - first - self.num_slots
        if rest > 0:
            return (*_cut(self.runs, begin, self.num_slots), *_cut(self.runs, 0, rest))
        return _cut(self.runs, begin, begin + end - first)


@dataclass(frozen=True)
class Group:
    """Layers whose lanes are equally long.

    Attributes:
        window: how many positions a token attends to, itself included; None for all.
        max_slots: of a lane.
    """

    layers: tuple[int, ...]
    window: int | None
    max_slots: int | None

    @property
    def num_lanes(self) -> int:
        return len(self.layers)


@dataclass(frozen=True)
class CacheLayout:
    """The lanes of each sequence of a stage: those of the first group, then those of the next."""

    row_bytes: int
    groups: tuple[Group, ...]

    @cached_property
    def lane_of_layer(self) -> dict[int, int]:
        found, begin = dict[int, int](), 0
        for group in self.groups:
            found |= {layer: begin + index for index, layer in enumerate(group.layers)}
            begin += group.num_lanes
        return found


def make_layout(
    layers: Sequence[LayerCache], first_layer: int, element_bytes: int, max_step_tokens: int
) -> CacheLayout:
    """
    Args:
        layers: those of the stage, `first_layer` being the number of the first.
        max_step_tokens: of one sequence in one forward.
    """
    row_bytes = max(layer.elements_per_token for layer in layers) * element_bytes
    windows = sorted({layer.window for layer in layers}, key=lambda window: (window is not None, -(window or 0)))
    groups = [
        Group(
            layers=tuple(first_layer + index for index, layer in enumerate(layers) if layer.window == window),
            window=window,
            max_slots=None if window is None else window - 1 + max_step_tokens,
        )
        for window in windows
    ]
    return CacheLayout(row_bytes, tuple(groups))


def _cut(runs: Sequence[Run], first: int, end: int) -> tuple[Run, ...]:
    """What runs have of the slots number [first, end)."""
    found, begin = [], 0
    for slot, length in runs:
        low, high = max(first, begin), min(end, begin + length)
        if low < high:
            found.append((slot + low - begin, high - low))
        begin += length
    return tuple(found)
