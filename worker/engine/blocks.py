"""Which places of a pool are free. Pure Python: it knows neither sessions nor tensors.

Blocks are handed out in runs that are as few as possible: attention reads one run of a pool where it lies, and has to
gather several.
"""

from bisect import bisect_left, insort

Run = tuple[int, int]


class FreeBlocks:
    """The free ones of blocks 0 .. num_blocks - 1, as runs of (first block, number of blocks)."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.num_free = num_blocks
        self._runs: list[Run] = [(0, num_blocks)] if num_blocks else []

    def take(self, num_blocks: int) -> tuple[Run, ...]:
        """Blocks for the taker alone, until `give_back`: the smallest run that has them all, else the largest runs.

        Raises ValueError when there are not as many.
        """
        if num_blocks > self.num_free:
            raise ValueError(f"{num_blocks} blocks are asked for, {self.num_free} are free")
        taken = []
        missing = num_blocks
        while missing:
            whole = min((run for run in self._runs if run[1] >= missing), key=_length, default=None)
            first, length = whole or max(self._runs, key=_length)
            used = min(length, missing)
            self._runs.remove((first, length))
            if used < length:
                insort(self._runs, (first + used, length - used))
            taken.append((first, used))
            missing -= used
        self.num_free -= num_blocks
        return tuple(taken)

    def give_back(self, runs: tuple[Run, ...]) -> None:
        """Make blocks free again; each run joins the free ones beside it."""
        for first, length in runs:
            place = bisect_left(self._runs, (first, length))
            if place < len(self._runs) and self._runs[place][0] == first + length:
                length += self._runs.pop(place)[1]
            if place and sum(self._runs[place - 1]) == first:
                place -= 1
                before, length_before = self._runs.pop(place)
                first, length = before, length + length_before
            self._runs.insert(place, (first, length))
        self.num_free += sum(length for _, length in runs)

    def check_integrity(self, taken: list[Run]) -> None:
        """Hold the free blocks against those that are taken: together they are all, each once."""
        runs = sorted(self._runs + taken)
        end = 0
        for first, length in runs:
            assert first == end and length > 0, "blocks are lost, or belong to two"  # noqa: PT018
            end = first + length
        assert end == self.num_blocks
        assert self.num_free == sum(length for _, length in self._runs)


def _length(run: Run) -> int:
    return run[1]
