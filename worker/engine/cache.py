"""Who may take how much memory, and where his keys and values lie. Pure accounting: the tensors are the runner's.

A session's worst case is reserved when it is admitted, so an admitted session never runs out of memory half-way.
"""

from collections.abc import Iterable

from worker.engine.blocks import FreeBlocks, Run
from worker.engine.errors import AtCapacity

BLOCK_TOKENS = 16


class CacheManager:
    """Owner of the memory bound, of the blocks of keys and values, and of every session's share of both.

    A block holds `BLOCK_TOKENS` tokens of all of the stage's layers in `block_bytes`. As many blocks exist as the bound
    allows, so whoever is within the bound finds blocks.
    """

    def __init__(self, max_sessions: int, max_bytes: int, block_bytes: int = 0) -> None:
        """`block_bytes` is 0 where the keys and values lie elsewhere; sessions then have no blocks."""
        self.max_sessions = max_sessions
        self.max_bytes = max_bytes
        self.num_blocks = max_bytes // block_bytes if block_bytes else 0
        self._block_bytes = block_bytes
        self._free = FreeBlocks(self.num_blocks)
        self._reserved_bytes: dict[bytes, int] = {}
        self._blocks: dict[bytes, tuple[Run, ...]] = {}

    @property
    def num_sessions(self) -> int:
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
        """Blocks of a session of this length."""
        return -(-num_tokens // BLOCK_TOKENS) if self._block_bytes else 0

    def can_allocate(self, num_other_bytes: int, num_tokens: int = 0) -> bool:
        needed = self.needed_bytes(num_other_bytes, num_tokens)
        return self.num_sessions < self.max_sessions and self.used_bytes + needed <= self.max_bytes

    def allocate(self, session_id: bytes, num_other_bytes: int, num_tokens: int = 0) -> None:
        """Reserve blocks for `num_tokens` and some bytes besides for a session until `free`. Raises AtCapacity."""
        assert session_id not in self._reserved_bytes
        if self.num_sessions >= self.max_sessions:
            raise AtCapacity(
                "sessions", f"{self.num_sessions} sessions are open, the most allowed; retry later or elsewhere"
            )
        needed = self.needed_bytes(num_other_bytes, num_tokens)
        if not self.can_allocate(num_other_bytes, num_tokens):
            raise AtCapacity(
                "cache",
                f"the session may need {needed} bytes of cache, {self.max_bytes - self.used_bytes} are free; "
                "retry later, elsewhere, or with fewer tokens",
            )
        self._reserved_bytes[session_id] = needed
        self._blocks[session_id] = self._free.take(self.num_blocks_for(num_tokens))

    def free(self, session_id: bytes) -> None:
        """Give a session's share back; does nothing when it has none."""
        if self._reserved_bytes.pop(session_id, None) is not None:
            self._free.give_back(self._blocks.pop(session_id))

    def slots(self, session_id: bytes) -> tuple[Run, ...]:
        """Where a session's positions lie, from 0 on: (first slot, number of slots)s; a slot is one token's place."""
        return tuple((block * BLOCK_TOKENS, count * BLOCK_TOKENS) for block, count in self._blocks[session_id])

    def check_integrity(self, open_session_ids: Iterable[bytes]) -> None:
        """Hold the books against who is open: a share without a session is memory lost for good."""
        assert set(self._reserved_bytes) == set(self._blocks) == set(open_session_ids), (
            "reserved memory and open sessions differ"
        )
        assert self.used_bytes <= self.max_bytes
        self._free.check_integrity([run for runs in self._blocks.values() for run in runs])

    def needed_bytes(self, num_other_bytes: int, num_tokens: int) -> int:
        """What `allocate` would reserve."""
        return num_other_bytes + self.num_blocks_for(num_tokens) * self._block_bytes
