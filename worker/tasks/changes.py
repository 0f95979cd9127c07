"""Changes of rings that wait to be checked: that takes signatures and the chain, and may hold up nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from declai.protocol.jobs import StageJob
from declai.protocol.ring import Replacement
from declai.protocol.wire import Replaced


class PendingChanges:
    """Has each change checked, in a thread of its own. Of each place of a job the newest alone waits."""

    def __init__(self, check: Callable[[StageJob, Replacement, Replaced], None]) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._waiting: dict[tuple[bytes, int, int], tuple[StageJob, Replacement, Replaced]] = {}
        self._executor = ThreadPoolExecutor(1, "changes")

    def put(self, job: StageJob, change: Replacement, frame: Replaced) -> None:
        """Have it checked unless a newer one comes before its turn. Does not wait."""
        place = change.job, change.stage, change.replica.number
        with self._lock:
            is_waiting = place in self._waiting
            self._waiting[place] = job, change, frame
        if not is_waiting:
            self._executor.submit(self._take, place)

    def close(self) -> None:
        """Check no more; waits for the check that runs."""
        self._executor.shutdown(cancel_futures=True)

    def _take(self, place: tuple[bytes, int, int]) -> None:
        with self._lock:
            job, change, frame = self._waiting.pop(place)
        self._check(job, change, frame)
