"""Who may take how much memory. Pure accounting: the tensors are the runner's.

A session's worst case is reserved when it is admitted, so an admitted session never runs out of memory half-way.
"""

from collections.abc import Iterable

from worker.engine.errors import AtCapacity


class CacheManager:
    """Owner of the memory bound and of every session's share of it."""

    def __init__(self, max_sessions: int, max_bytes: int) -> None:
        self.max_sessions = max_sessions
        self.max_bytes = max_bytes
        self._reserved_bytes: dict[bytes, int] = {}

    @property
    def num_sessions(self) -> int:
        return len(self._reserved_bytes)

    @property
    def used_bytes(self) -> int:
        return sum(self._reserved_bytes.values())

    def can_allocate(self, num_bytes: int) -> bool:
        return self.num_sessions < self.max_sessions and self.used_bytes + num_bytes <= self.max_bytes

    def allocate(self, session_id: bytes, num_bytes: int) -> None:
        """Reserve `num_bytes` for a session until `free`. Raises AtCapacity."""
        assert session_id not in self._reserved_bytes
        if self.num_sessions >= self.max_sessions:
            raise AtCapacity(f"{self.num_sessions} sessions are open, the most allowed; retry later or elsewhere")
        if not self.can_allocate(num_bytes):
            raise AtCapacity(
                f"the session may need {num_bytes} bytes of cache, {self.max_bytes - self.used_bytes} are free; "
                "retry later, elsewhere, or with fewer tokens"
            )
        self._reserved_bytes[session_id] = num_bytes

    def free(self, session_id: bytes) -> None:
        """Give a session's share back; does nothing when it has none."""
        self._reserved_bytes.pop(session_id, None)

    def check_integrity(self, open_session_ids: Iterable[bytes]) -> None:
        """Hold the books against who is open: a share without a session is memory lost for good."""
        assert set(self._reserved_bytes) == set(open_session_ids), "reserved memory and open sessions differ"
        assert self.used_bytes <= self.max_bytes
