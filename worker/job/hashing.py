"""A thread that hashes what nobody waits for, in the order in which it was handed in. Torch-free.

sha256 lets other threads run while it works on more than 2 KiB, so the engine thread goes on meanwhile.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

# Wire bytes that may wait to be hashed: they are frames that would be freed otherwise.
MAX_PENDING_BYTES = 64 * 2**20


class Hasher(threading.Thread):
    """Everything but `run` is for one other thread alone."""

    def __init__(self) -> None:
        super().__init__(name="hasher", daemon=True)
        self._kept: list[Callable[[], None]] = []
        self._batches: queue.SimpleQueue[list[Callable[[], None]] | None] = queue.SimpleQueue()
        self._num_pending_bytes = 0

    def put(self, action: Callable[[], None], num_bytes: int = 0) -> None:
        """Keep an action that holds `num_bytes` for the next `release`. Waits, once every MAX_PENDING_BYTES, until no
        more are held."""
        self._kept.append(action)
        self._num_pending_bytes += num_bytes
        if self._num_pending_bytes > MAX_PENDING_BYTES:
            self.flush()

    def release(self) -> None:
        """Begin with what was put. To be called when nothing urgent is left: waking a thread costs the one that wakes
        it, too."""
        if self._kept:
            self._batches.put(self._kept)
            self._kept = []

    def flush(self) -> None:
        """Do all that was put, and wait for it."""
        done = threading.Event()
        self._kept.append(done.set)
        self.release()
        done.wait()
        self._num_pending_bytes = 0

    def close(self) -> None:
        """Do all that was put, then end."""
        self.release()
        self._batches.put(None)
        self.join()

    def run(self) -> None:
        while (batch := self._batches.get()) is not None:
            for action in batch:
                try:
                    action()
                except Exception:  # one job's fault must not take the other jobs' receipts with it
                    log.exception("hashing failed")
            del batch, action  # lets go of the bytes while waiting for the next
