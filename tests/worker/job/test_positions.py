"""Positions: marks never overtake each other, nothing is skipped, and going back is as if one had never gone on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from declai.worker.job.positions import Mark, PositionGap, Positions

Move = tuple[str, Mark, int]
MOVES = st.lists(
    st.tuples(st.sampled_from(["advance", "truncate"]), st.sampled_from(Mark), st.integers(0, 9)), max_size=60
)


def counts(positions: Positions) -> list[int]:
    return [positions.received, positions.computed, positions.committed, positions.sent]


@given(MOVES)
def test_any_moves_leave_the_marks_in_order_and_refused_ones_change_nothing(moves: list[Move]) -> None:
    positions, model = Positions(), [set[int]() for _ in Mark]
    for move, mark, number in moves:
        before = counts(positions)
        if move == "truncate":
            positions.truncate(number, mark)
            for later in Mark:
                if later >= mark:
                    model[later] = {position for position in model[later] if position < number}
        else:
            new = set(range(before[mark], before[mark] + number))
            if number and (mark == 0 or new <= model[mark - 1]):
                positions.advance(mark, before[mark], number)
                model[mark] |= new
            else:
                with pytest.raises(PositionGap):
                    positions.advance(mark, before[mark], number)
                assert counts(positions) == before
        assert counts(positions) == [len(marked) for marked in model]
        assert counts(positions) == sorted(counts(positions), reverse=True)
        assert all(marked == set(range(len(marked))) for marked in model)


@given(st.integers(0, 20), st.integers(0, 40), st.sampled_from(Mark))
def test_what_does_not_come_next_is_a_gap(length: int, first_position: int, mark: Mark) -> None:
    positions = Positions()
    for each in Mark:
        if length:
            positions.advance(each, 0, length)
    if first_position != length:
        with pytest.raises(PositionGap):
            positions.advance(mark, first_position, 1)


@given(st.integers(1, 30), st.integers(0, 30), st.sampled_from(Mark))
def test_truncating_twice_is_truncating_to_the_lower(length: int, position: int, mark: Mark) -> None:
    once, twice = Positions(), Positions()
    for positions in (once, twice):
        for each in Mark:
            positions.advance(each, 0, length)
    twice.truncate(position + 3, mark)
    for positions in (once, twice):
        positions.truncate(position, mark)
    assert counts(once) == counts(twice)
