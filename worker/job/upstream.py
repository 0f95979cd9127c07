"""What comes to a job from the stage before it: what of it is new, and whether anything came yet. Pure Python."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from declai.protocol import wire


class Upstream:
    """Tells what came before from what is new.

    What comes again is the last frame or the one before it, because its sender cannot know what a cut link lost; or,
    from a node that took another's place, anything that the node before it had sent.

    Attributes:
        is_silent: whether nothing came from who stands there now: it has to be told that this stage is ready.
    """

    def __init__(self, *, is_silent: bool) -> None:
        self.is_silent = is_silent
        self._recent: deque[tuple[str, int, int]] = deque(maxlen=2)
        self._num_known = 0

    def is_replaced(self, num_received: int) -> None:
        """Another node stands there; the one before it sent `num_received` positions."""
        self.is_silent = True
        self._recent.clear()
        self._num_known = num_received

    def is_new(self, frame: wire.Hidden | wire.Token) -> bool:
        self.is_silent = False
        if isinstance(frame, wire.Hidden):
            first, count = frame.first_position, frame.num_tokens
        else:
            first, count = frame.position, 1
        if first + count <= self._num_known or (frame.kind, first, count) in self._recent:
            return False
        self._recent.append((frame.kind, first, count))
        return True

    def new_part(self, frame: wire.Hidden) -> wire.Hidden:
        """The frame without the rows that the node before sent."""
        num_old = self._num_known - frame.first_position
        if num_old <= 0:
            return frame
        payload = memoryview(frame.payload).cast("B")
        row_bytes = payload.nbytes // frame.num_tokens
        return replace(
            frame,
            first_position=self._num_known,
            num_tokens=frame.num_tokens - num_old,
            payload=payload[num_old * row_bytes :],
        )
