"""Who is next when there is not room for all: start-time fair queueing (Goyal, Vin and Cheng 1996). Pure Python.

Each sequence has a tag; the lowest goes first. A token served moves its sequence's tag on by one over its weight, so
sequences that always wait get tokens in proportion to their weights. Who comes back after a pause starts at the tag
that is being served: a pause saves nothing up.
"""


class FairQueue:
    """The sequences that wait for one kind of service, and the tags of those that may come back."""

    def __init__(self) -> None:
        self._weights: dict[bytes, float] = {}
        self._tags: dict[bytes, float] = {}
        self._waiting: dict[bytes, None] = {}
        self._now = 0.0

    def __contains__(self, sequence_id: bytes) -> bool:
        """Whether the sequence waits."""
        return sequence_id in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, sequence_id: bytes, weight: float) -> None:
        """A sequence with a weight above 0, which does not wait yet."""
        self._weights[sequence_id] = weight
        self._tags[sequence_id] = self._now

    def wait(self, sequence_id: bytes) -> None:
        """The sequence has something to serve."""
        if sequence_id not in self._waiting:
            self._tags[sequence_id] = max(self._tags[sequence_id], self._now)
            self._waiting[sequence_id] = None

    def pause(self, sequence_id: bytes) -> None:
        """The sequence gets no turn until it waits again."""
        self._waiting.pop(sequence_id, None)

    def in_order(self) -> list[bytes]:
        """All that wait, who is next first; equals by how long they wait."""
        return sorted(self._waiting, key=self._tags.__getitem__)

    def serve(self, sequence_id: bytes, num_tokens: int, *, waits: bool) -> None:
        """A sequence that waited was served; `waits`: more of it does."""
        self._now = max(self._now, self._tags[sequence_id])
        self._tags[sequence_id] += num_tokens / self._weights[sequence_id]
        del self._waiting[sequence_id]
        if waits:
            self._waiting[sequence_id] = None

    def rest(self, sequence_id: bytes) -> None:
        """A sequence that waited does not any more, and was not served."""
        del self._waiting[sequence_id]

    def remove(self, sequence_id: bytes) -> None:
        """Forget a sequence; does nothing when it is unknown."""
        for books in (self._weights, self._tags, self._waiting):
            books.pop(sequence_id, None)
