"""`ready` frames that came before their job did: a task may reach one stage later than the stage after it."""

from __future__ import annotations

from collections import OrderedDict

MAX_PARKED_PER_PEER = 64


class ParkedReady:
    """`ready` frames for jobs not known yet, a bounded number per peer, for a few seconds."""

    def __init__(self) -> None:
        self._by_peer: dict[bytes, OrderedDict[bytes, float]] = {}

    def park(self, sender: bytes, job: bytes, now: float) -> None:
        jobs = self._by_peer.setdefault(sender, OrderedDict())
        jobs[job] = now
        jobs.move_to_end(job)
        while len(jobs) > MAX_PARKED_PER_PEER:
            jobs.popitem(last=False)

    def take(self, sender: bytes, job: bytes) -> bool:
        return self._by_peer.get(sender, OrderedDict()).pop(job, None) is not None

    def forget_before(self, moment: float) -> None:
        for sender, jobs in list(self._by_peer.items()):
            while jobs and next(iter(jobs.values())) < moment:
                jobs.popitem(last=False)
            if not jobs:
                del self._by_peer[sender]
