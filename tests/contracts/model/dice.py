"""Choices within a move: Hypothesis throws one number for it, which decides them all and can be replayed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

Item = TypeVar("Item")
SELDOM = 0.05


class Dice:
    """Evenly spread choices; Hypothesis's own would come back to few of them."""

    def __init__(self, seed: int) -> None:
        self._seed, self._random = seed, random.Random(seed)

    def __repr__(self) -> str:
        return f"Dice({self._seed})"

    def pick(self, options: Sequence[Item]) -> Item:
        return self._random.choice(options)

    def seldom(self) -> bool:
        return self._random.random() < SELDOM


DICE = st.integers(0, 2**32 - 1).map(Dice)
