"""How much memory a sequence may take, and where its keys and values lie. Pure accounting: the runner has the tensors.

A sequence's worst case is reserved when it is admitted, so an admitted sequence never runs out of memory half-way.
"""

from collections.abc import Iterable

from declai.worker.engine.errors import AtCapacity
from declai.worker.engine.memory.blocks import FreeBlocks
from declai.worker.engine.memory.kept_rows import JobRows
from declai.worker.engine.memory.prefix import Hit, PrefixCache
from declai.worker.model.layout import BLOCK_TOKENS, CacheLayout, Group, Lane, Run


class CacheManager:
    """Owner of the memory bound, of the blocks of keys and values, and of every sequence's share of both.

    It also knows what was computed before and lies in blocks still (`find`). Who is admitted does not depend on that:
    a free block is handed out whatever was left in it.

    A block is `BLOCK_TOKENS` rows of one lane (see `worker.model.layout`). As many blocks exist as the bound allows, so
    whoever is within the bound finds blocks.
    """

    def __init__(self, max_sequences: int, max_bytes: int, layout: CacheLayout | None = None) -> None:
        """Without a layout the keys and values lie elsewhere; sequences then have no blocks."""
        self.max_sequences = max_sequences
        self.max_bytes = max_bytes
        self._groups = layout.groups if layout else ()
        self._block_bytes = BLOCK_TOKENS * layout.row_bytes if layout else 0
        self.num_blocks = max_bytes // self._block_bytes if layout else 0
        self._free = FreeBlocks(self.num_blocks)
        self._reserved_bytes: dict[bytes, int] = {}
        self._blocks: dict[bytes, tuple[Run, ...]] = {}
        self._lanes: dict[bytes, tuple[Lane, ...]] = {}
        self._prefixes = PrefixCache(_reaches(self._groups))

    @property
    def num_sequences(self) -> int:
        return len(self._reserved_bytes)

    @property
    def used_bytes(self) -> int:
        return sum(self._reserved_bytes.values())

    @property
    def num_free_blocks(self) -> int:
        return self._free.num_free

    @property
    def num_used_blocks(self) -> int:
        return self.num_blocks - self._free.num_free

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks of a sequence of this length."""
        return sum(group.num_lanes * _lane_blocks(group, num_tokens) for group in self._groups)

    def can_allocate(self, num_other_bytes: int, num_tokens: int = 0) -> bool:
        needed = self.needed_bytes(num_other_bytes, num_tokens)
        return self.num_sequences < self.max_sequences and self.used_bytes + needed <= self.max_bytes

    def allocate(
        self,
        sequence_id: bytes,
        num_other_bytes: int,
        num_tokens: int = 0,
        salt: bytes = b"",
        rows: JobRows | None = None,
    ) -> None:
        """Reserve blocks for `num_tokens` and some bytes besides for a sequence until `free`.

        Sequences of one `salt` share what they compute; with an empty one, nobody shares. `rows` is where the sequence
        keeps what the next stage gets of it, if there is one; closed here once nobody can find it. Raises AtCapacity.
        """
        assert sequence_id not in self._reserved_bytes
        if self.num_sequences >= self.max_sequences:
            raise AtCapacity(
                "sequences", f"{self.num_sequences} sequences are open, the most allowed; retry later or elsewhere"
            )
        needed = self.needed_bytes(num_other_bytes, num_tokens)
        if not self.can_allocate(num_other_bytes, num_tokens):
            raise AtCapacity(
                "cache",
                f"the sequence may need {needed} bytes of cache, {self.max_bytes - self.used_bytes} are free; "
                "retry later, elsewhere, or with fewer tokens",
            )
        self._reserved_bytes[sequence_id] = needed
        runs = self._blocks[sequence_id] = self._free.take(self.num_blocks_for(num_tokens))
        lanes = self._lanes[sequence_id] = self._divide(runs, num_tokens)
        self._prefixes.open(sequence_id, salt if lanes else b"", runs, lanes, rows)

    def free(self, sequence_id: bytes, *, keep: bool = True) -> None:
        """Give a sequence's share back; does nothing when it has none. Unless `keep`, nobody finds what it computed."""
        if self._reserved_bytes.pop(sequence_id, None) is not None:
            findable = self._prefixes.close(sequence_id, keep=keep)
            self._free.give_back(self._blocks.pop(sequence_id), findable=findable)
            del self._lanes[sequence_id]

    def lanes(self, sequence_id: bytes) -> tuple[Lane, ...]:
        """Where a sequence's rows lie."""
        return self._lanes[sequence_id]

    def feed(self, sequence_id: bytes, data: memoryview, num_tokens: int) -> None:
        """Note a sequence's next input, uint8 [bytes]."""
        self._prefixes.extend(sequence_id, data, num_tokens)

    def computed(self, sequence_id: bytes, num_tokens: int) -> None:
        """Note that a sequence's first `num_tokens` positions were computed, and their rows may be found."""
        self._prefixes.computed(sequence_id, num_tokens)

    def find(self, sequence_id: bytes, end: int) -> Hit | None:
        """Rows of somebody who has computed more of a sequence's own input; valid until the next `allocate`.

        `end`: the last position that is of use, and one.
        """
        return self._prefixes.find(sequence_id, end)

    def copied(self, sequence_id: bytes, hit: Hit) -> None:
        """Note that a sequence has what was found."""
        self._prefixes.copied(sequence_id, hit)

    def check_integrity(self, open_sequence_ids: Iterable[bytes]) -> None:
        """Hold the books against who is open: a share without a sequence is memory lost for good."""
        assert set(self._reserved_bytes) == set(self._blocks) == set(open_sequence_ids), (
            "reserved memory and open sequences differ"
        )
        assert self.used_bytes <= self.max_bytes
        self._free.check_integrity([run for runs in self._blocks.values() for run in runs])
        self._prefixes.check_integrity(self._blocks)

    def needed_bytes(self, num_other_bytes: int, num_tokens: int) -> int:
        """What `allocate` would reserve."""
        return num_other_bytes + self.num_blocks_for(num_tokens) * self._block_bytes

    def _divide(self, runs: tuple[Run, ...], num_tokens: int) -> tuple[Lane, ...]:
        """A sequence's blocks as lanes, one after the other."""
        slots = Lane(tuple((block * BLOCK_TOKENS, count * BLOCK_TOKENS) for block, count in runs))
        lanes, begin = [], 0
        for group in self._groups if runs else ():
            num_slots = _lane_blocks(group, num_tokens) * BLOCK_TOKENS
            for _ in range(group.num_lanes):
                lanes.append(Lane(slots.cut(begin, begin + num_slots)))
                begin += num_slots
        return tuple(lanes)


def _lane_blocks(group: Group, num_tokens: int) -> int:
    num_slots = num_tokens if group.max_slots is None else min(num_tokens, group.max_slots)
    return -(-num_slots // BLOCK_TOKENS)


def _reaches(groups: Iterable[Group]) -> tuple[int | None, ...]:
    """How many positions before the next token each lane is needed for; None for all."""
    found: list[int | None] = []
    for group in groups:
        found += [None if group.window is None else group.window - 1] * len(group.layers)
    return tuple(found)
