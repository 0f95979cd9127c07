"""What was computed before: blocks of keys and values, found by all the input that made them. Pure Python.

A block's name is a hash over the bytes that went into it and the name of the block before it, so whoever has a block's
name has the whole input up to its end. The first block's name begins with a salt: sequences with different salts never
find each other's. A sequence that ended leaves its blocks to be found until they are handed out again.
"""

import hashlib
import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from declai.worker.engine.memory.kept_rows import JobRows
from declai.worker.model.layout import BLOCK_TOKENS, Lane, Run


class InputChain:
    """The names of a sequence's blocks, as its input comes."""

    def __init__(self, salt: bytes) -> None:
        """Without a salt there are no names."""
        self.names: list[bytes] = []
        self._is_kept = bool(salt)
        self._open = hashlib.sha256(salt)
        self._num_open = 0

    def extend(self, data: memoryview, num_tokens: int) -> None:
        """The next input, uint8 [bytes], the same number of bytes for each token."""
        if not self._is_kept or not num_tokens:
            return
        token_bytes, begin = data.nbytes // num_tokens, 0
        while begin < num_tokens:
            end = min(num_tokens, begin + BLOCK_TOKENS - self._num_open)
            self._open.update(data[begin * token_bytes : end * token_bytes])
            self._num_open += end - begin
            begin = end
            if self._num_open == BLOCK_TOKENS:
                self.names.append(self._open.digest())
                self._open, self._num_open = hashlib.sha256(self.names[-1]), 0


@dataclass(eq=False)
class Holding:
    """What lies in the blocks of one sequence, open or ended: the first `num_computed` positions of its input.

    Of each lane only what is not yet overwritten, and from a position in `firsts` on. `rows`: what the next stage was
    given of these positions, where there is one.
    """

    runs: tuple[Run, ...]
    lanes: tuple[Lane, ...]
    chain: InputChain
    firsts: list[int]
    rows: JobRows | None = None
    num_computed: int = 0
    num_findable: int = 0

    def first_kept(self, number: int) -> int:
        return max(self.firsts[number], self.num_computed - self.lanes[number].num_slots)


@dataclass(frozen=True)
class Hit:
    """What is to be copied: of each of these lanes the positions [first, num_tokens).

    `rows`, from `first_position` on: what the next stage gets.
    """

    first_position: int
    num_tokens: int
    lanes: tuple[Lane, ...]
    firsts: tuple[int, ...]
    rows: JobRows | None = None


class PrefixCache:
    """Finds computed blocks by name. It is told before others get a sequence's blocks: what it finds is whole."""

    def __init__(self, reaches: tuple[int | None, ...]) -> None:
        """`reaches`: how many positions before the next token are needed of each lane; None for all."""
        self._reaches = reaches
        self._open: dict[bytes, Holding] = {}
        self._ended: list[Holding] = []
        self._holders: dict[bytes, list[Holding]] = {}

    def open(
        self,
        sequence_id: bytes,
        salt: bytes,
        runs: tuple[Run, ...],
        lanes: tuple[Lane, ...],
        rows: JobRows | None = None,
    ) -> None:
        """A sequence that was given blocks: what ended sequences left there is gone, and so are the `rows` with it."""
        for holding in [holding for holding in self._ended if _overlap(holding.runs, runs)]:
            self._ended.remove(holding)
            self._forget(holding)
        self._open[sequence_id] = Holding(runs, lanes, InputChain(salt), [0] * len(lanes), rows)

    def extend(self, sequence_id: bytes, data: memoryview, num_tokens: int) -> None:
        self._open[sequence_id].chain.extend(data, num_tokens)

    def computed(self, sequence_id: bytes, num_tokens: int) -> None:
        """A sequence's first `num_tokens` positions were written to its blocks."""
        holding = self._open[sequence_id]
        holding.num_computed = num_tokens
        for name in holding.chain.names[holding.num_findable : num_tokens // BLOCK_TOKENS]:
            self._holders.setdefault(name, []).append(holding)
            holding.num_findable += 1

    def copied(self, sequence_id: bytes, hit: Hit) -> None:
        """What was found was written to a sequence's blocks."""
        own = self._open[sequence_id]
        jumps = [first > own.num_computed for first in hit.firsts]
        own.firsts = [new if jump else old for old, new, jump in zip(own.firsts, hit.firsts, jumps, strict=True)]
        self.computed(sequence_id, hit.num_tokens)

    def find(self, sequence_id: bytes, end: int) -> Hit | None:
        """Who holds more of a sequence's input than it has computed: as much as there is before position `end`, and the
        newest copy. Only whole blocks are found, and only after whole blocks.

        A sequence that holds a block has computed all before it. In a ring, the more input it shares with this one, the
        less of that is overwritten: so each has one try.
        """
        own = self._open[sequence_id]
        begin = own.num_computed // BLOCK_TOKENS
        if own.num_computed % BLOCK_TOKENS or end // BLOCK_TOKENS <= begin:
            return None
        names = own.chain.names[begin : end // BLOCK_TOKENS]
        found = list(itertools.takewhile(bool, (self._holders.get(name, ()) for name in names)))
        tried = set[Holding]()
        for block, holders in reversed(list(enumerate(found, start=begin + 1))):
            for holder in reversed(holders):
                if holder not in tried:
                    tried.add(holder)
                    if (hit := self._hit(own, holder, block * BLOCK_TOKENS)) is not None:
                        return hit
        return None

    def close(self, sequence_id: bytes, *, keep: bool) -> bool:
        """The sequence has ended. Unless `keep`, nobody finds its blocks. Returns whether anybody may."""
        holding = self._open.pop(sequence_id)
        findable = keep and holding.num_findable > 0
        if findable:
            self._ended.append(holding)
            if holding.rows is not None:
                holding.rows.end()
        else:
            self._forget(holding)
        return findable

    def check_integrity(self, taken: dict[bytes, tuple[Run, ...]]) -> None:
        """Hold what can be found against who has which blocks."""
        assert {sequence_id: holding.runs for sequence_id, holding in self._open.items()} == taken
        holdings = [*self._open.values(), *self._ended]
        runs = sorted(run for holding in holdings for run in holding.runs)
        ends = [first + length for first, length in runs]
        assert all(end <= first for end, (first, _) in zip(ends, runs[1:], strict=False)), "a block is held twice"
        findable = {(name, id(holding)) for holding in holdings for name in _findable(holding)}
        assert findable == {(name, id(holder)) for name, holders in self._holders.items() for holder in holders}
        assert all(self._holders.values())

    def _hit(self, own: Holding, holder: Holding, num_tokens: int) -> Hit | None:
        firsts = []
        for number, reach in enumerate(self._reaches):
            first = own.num_computed if reach is None else max(own.num_computed, num_tokens - reach)
            if first < holder.first_kept(number):
                return None
            firsts.append(first)
        if holder.rows is not None and not holder.rows.holds(own.num_computed, num_tokens):
            return None
        return Hit(own.num_computed, num_tokens, holder.lanes, tuple(firsts), holder.rows)

    def _forget(self, holding: Holding) -> None:
        if holding.rows is not None:
            holding.rows.close()
        for name in _findable(holding):
            holders = self._holders[name]
            holders.remove(holding)
            if not holders:
                del self._holders[name]


def _findable(holding: Holding) -> Collection[bytes]:
    return holding.chain.names[: holding.num_findable]


def _overlap(some: Iterable[Run], others: Collection[Run]) -> bool:
    return any(
        first < other + other_length and other < first + length
        for first, length in some
        for other, other_length in others
    )
