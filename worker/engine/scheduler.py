"""Whose turn it is. Pure Python: it counts positions and knows neither tensors nor models.

Every session that has input waiting gets one forward in turn; a long prompt is cut into chunks, and between two of its
chunks every other waiting session has its turn.
"""

from collections import deque
from dataclasses import dataclass

from worker.engine.errors import PositionMismatch


@dataclass(frozen=True)
class Chunk:
    """The next forward: positions [first_position, first_position + num_tokens) of one session."""

    session_id: bytes
    first_position: int
    num_tokens: int


@dataclass
class _Progress:
    num_prompt_tokens: int
    max_positions: int
    num_fed: int = 0
    num_computed: int = 0


class Scheduler:
    """Owner of the queue of sessions that have input waiting."""

    def __init__(self, max_chunk_tokens: int, samples: bool) -> None:
        self._max_chunk_tokens = max_chunk_tokens
        self._samples = samples
        self._sessions: dict[bytes, _Progress] = {}
        self._waiting: deque[bytes] = deque()

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def add(self, session_id: bytes, num_prompt_tokens: int, max_positions: int) -> None:
        self._sessions[session_id] = _Progress(num_prompt_tokens, max_positions)

    def check_feed(self, session_id: bytes, first_position: int, num_tokens: int) -> None:
        """Raises PositionMismatch unless these positions continue the session and stay within it."""
        progress = self._sessions[session_id]
        if first_position != progress.num_fed:
            raise PositionMismatch(f"input starts at position {first_position}, expected {progress.num_fed}")
        if num_tokens < 1 or first_position + num_tokens > progress.max_positions:
            raise PositionMismatch(
                f"{num_tokens} positions from {first_position} on; the session ends at {progress.max_positions}"
            )

    def feed(self, session_id: bytes, num_tokens: int) -> None:
        progress = self._sessions[session_id]
        if progress.num_fed == progress.num_computed:
            self._waiting.append(session_id)
        progress.num_fed += num_tokens

    def schedule(self) -> Chunk | None:
        """The next chunk to compute, or None when nothing waits. The session goes to the end of the queue."""
        if not self._waiting:
            return None
        session_id = self._waiting.popleft()
        progress = self._sessions[session_id]
        chunk = Chunk(session_id, progress.num_computed, self._num_tokens_next(progress))
        progress.num_computed += chunk.num_tokens
        if progress.num_computed < progress.num_fed:
            self._waiting.append(session_id)
        return chunk

    def remove(self, session_id: bytes) -> None:
        if self._sessions.pop(session_id, None) is not None and session_id in self._waiting:
            self._waiting.remove(session_id)

    def check_integrity(self) -> None:
        waiting = {key for key, progress in self._sessions.items() if progress.num_computed < progress.num_fed}
        assert waiting == set(self._waiting), "the queue and the counts differ"
        assert len(waiting) == len(self._waiting), "a session waits twice"

    def _num_tokens_next(self, progress: _Progress) -> int:
        num_waiting = min(progress.num_fed - progress.num_computed, self._max_chunk_tokens)
        if not self._samples:
            return num_waiting
        # Logits are taken after the last position of a chunk, and from the prompt's end on each position needs its own.
        num_left_in_prompt = progress.num_prompt_tokens - progress.num_computed
        return min(num_waiting, max(num_left_in_prompt, 1))
