"""Who is next when there is not room for all: start-time fair queueing (Goyal, Vin and Cheng 1996). Pure Python.

Each session has a tag; the lowest goes first. A token served moves its session's tag on by one over its weight, so
sessions that always wait get tokens in proportion to their weights. Who comes back after a pause starts at the tag that
is being served: a pause saves nothing up.
"""


class FairQueue:
    """The sessions that wait for one kind of service, and the tags of those that may come back."""

    def __init__(self) -> None:
        self._weights: dict[bytes, float] = {}
        self._tags: dict[bytes, float] = {}
        self._waiting: dict[bytes, None] = {}
        self._now = 0.0

    def __contains__(self, session_id: bytes) -> bool:
        """Whether the session waits."""
        return session_id in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, session_id: bytes, weight: float) -> None:
        """A session with a weight above 0, which does not wait yet."""
        self._weights[session_id] = weight
        self._tags[session_id] = self._now

    def wait(self, session_id: bytes) -> None:
        """The session has something to serve."""
        if session_id not in self._waiting:
            self._tags[session_id] = max(self._tags[session_id], self._now)
            self._waiting[session_id] = None

    def pause(self, session_id: bytes) -> None:
        """The session gets no turn until it waits again."""
        self._waiting.pop(session_id, None)

    def in_order(self) -> list[bytes]:
        """All that wait, who is next first; equals by how long they wait."""
        return sorted(self._waiting, key=self._tags.__getitem__)

    def serve(self, session_id: bytes, num_tokens: int, *, waits: bool) -> None:
        """A session that waited was served; `waits`: more of it does."""
        self._now = max(self._now, self._tags[session_id])
        self._tags[session_id] += num_tokens / self._weights[session_id]
        del self._waiting[session_id]
        if waits:
            self._waiting[session_id] = None

    def rest(self, session_id: bytes) -> None:
        """A session that waited does not any more, and was not served."""
        del self._waiting[session_id]

    def remove(self, session_id: bytes) -> None:
        """Forget a session; does nothing when it is unknown."""
        for books in (self._weights, self._tags, self._waiting):
            books.pop(session_id, None)
