"""Which places of a pool are free. Pure Python: it knows neither sequences nor tensors.

Blocks are handed out in as few runs as possible: attention reads one run where it lies, and has to gather several.
Among the places with room for one run, those come first in which nothing can be found any more, and of them the first
one, whose pages the system has in memory already. Then comes the place that has been free the longest, so that what was
left in freed blocks can be found for as long as possible.
"""

from bisect import insort

from declai.worker.model.layout import Run


class FreeBlocks:
    """The free ones of blocks 0 .. num_blocks - 1, as runs of (first block, number of blocks, time of freeing)."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.num_free = num_blocks
        self._time = 0
        self._runs: list[tuple[int, int, int]] = [(0, num_blocks, 0)] if num_blocks else []

    def take(self, num_blocks: int) -> tuple[Run, ...]:
        """Blocks for the taker alone, until `give_back`: the run whose newest block was freed before the newest of any
        other run as long; where no run has them all, the longest runs.

        Raises ValueError when there are not as many.
        """
        if num_blocks > self.num_free:
            raise ValueError(f"{num_blocks} blocks are asked for, {self.num_free} are free")
        taken = []
        missing = num_blocks
        while missing:
            first, length = self._oldest(missing) or self._longest()
            self._cut_out(first, length)
            taken.append((first, length))
            missing -= length
        self.num_free -= num_blocks
        return tuple(taken)

    def give_back(self, runs: tuple[Run, ...], *, findable: bool = True) -> None:
        """Make blocks free again. `findable`: whether anybody may find what was left in them."""
        self._time += 1
        for first, length in runs:
            insort(self._runs, (first, length, self._time if findable else 0))
            self.num_free += length

    def check_integrity(self, taken: list[Run]) -> None:
        """Hold the free blocks against those that are taken: together they are all, each once."""
        free = [(first, length) for first, length, _ in self._runs]
        end = 0
        for first, length in sorted(free + taken):
            assert first == end and length > 0, "blocks are lost, or belong to two"  # noqa: PT018
            end = first + length
        assert end == self.num_blocks
        assert self.num_free == sum(length for _, length in free)

    def _oldest(self, num_blocks: int) -> Run | None:
        """The run of this length, from the beginning of a free one on, whose newest block was freed first."""
        best, best_time = None, self._time + 1
        for index, (first, _, _) in enumerate(self._runs):
            end, newest = first, 0
            for start, length, time in self._runs[index:]:
                newest = max(newest, time)
                if start != end or newest >= best_time:
                    break
                end = start + length
                if end - first >= num_blocks:
                    best, best_time = (first, num_blocks), newest
                    break
        return best

    def _longest(self) -> Run:
        joined: list[Run] = []
        for first, length, _ in self._runs:
            if joined and sum(joined[-1]) == first:
                first, before = joined.pop()
                length += before
            joined.append((first, length))
        return max(joined, key=lambda run: run[1])

    def _cut_out(self, first: int, length: int) -> None:
        """Take [first, first + length), which begins with a free run, off the free ones."""
        end = first + length
        kept = [run for run in self._runs if not first <= run[0] < end]
        begun = [run for run in self._runs if first <= run[0] < end < run[0] + run[1]]
        self._runs = sorted(kept + [(end, begin + size - end, time) for begin, size, time in begun])
