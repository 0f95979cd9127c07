"""Jobs' frames on their way out: a full link is waited out, and after a cut the last words are said again. No sockets.

What one step makes for a peer leaves in one message: frames that came one by one would each begin a step of their own
at a next stage that has nothing else to do, and batches would fall apart.

A frame that a full link does not take waits in line, and the engine thread gives its job no more turns until the line
is empty: frames keep their order, and what waits stays small. What was on its way when a connection broke is lost; in a
job that makes tokens this is at most the newest frame to a peer, or the last token and the end. These are kept, and
sent again to a peer that is back. A receiver drops what it has; where more was lost it sees the gap and ends the job.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from declai.links.errors import LinkFull
from declai.protocol import wire
from declai.protocol.peers import Peer

# Of one job in all lines. Its engine holds the job when a frame waits: only the rest of one step's frames come on top,
# and a higher bound would speed up nothing.
MAX_WAITING_FRAMES = 16
MAX_MESSAGE_BYTES = 2**20


@dataclass
class _LastWords:
    frames: deque[wire.JobFrame] = field(default_factory=lambda: deque(maxlen=2))
    ended_at: float | None = None


class Sender:
    """Used by the engine thread alone."""

    def __init__(self, send: Callable[..., None], may_join: Callable[[Peer], bool] = lambda peer: True) -> None:
        """
        Args:
            send: takes a peer and the frames of one message; raises LinkFull where the link takes no more now.
            may_join: whether a message to this peer may have several frames.
        """
        self._send = send
        self._may_join = may_join
        self._gathered: dict[Peer, deque[wire.JobFrame]] | None = None
        self._lines: dict[Peer, deque[wire.JobFrame]] = {}
        self._last: dict[tuple[Peer, bytes], _LastWords] = {}
        self.num_full = 0

    @property
    def peers(self) -> set[Peer]:
        """Those for whom frames wait or are kept."""
        return set(self._lines) | {peer for peer, _ in self._last}

    @property
    def waiting_jobs(self) -> set[bytes]:
        """The jobs that have frames in a line."""
        return {frame.job for line in self._lines.values() for frame in line}

    def send(self, peer: Peer, frame: wire.Frame) -> None:
        """Send a job's frame now or as soon as its link takes it. Raises LinkFull when too much of its job waits."""
        assert not isinstance(frame, wire.Heartbeat | wire.Ping | wire.Pong | wire.Relayed | wire.Listening)
        self._remember(peer, frame)
        if self._gathered is not None:
            self._gathered.setdefault(peer, deque()).append(frame)
            return
        if peer not in self._lines:
            try:
                self._send(peer, frame)
                return
            except LinkFull:
                self.num_full += 1
        if isinstance(frame, wire.Ready):  # it is said again anyway
            return
        num_waiting = sum(waiting.job == frame.job for line in self._lines.values() for waiting in line)
        if num_waiting >= MAX_WAITING_FRAMES and not isinstance(frame, wire.Failed):  # which takes the others' place
            raise LinkFull(f"{MAX_WAITING_FRAMES} frames wait for the link to {peer.address}")
        self._lines.setdefault(peer, deque()).append(frame)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is sent inside leaves with the next `flush`, those for one peer in as few messages as can be."""
        self._gathered = {}
        try:
            yield
        finally:
            gathered, self._gathered = self._gathered, None
            for peer, frames in gathered.items():
                self._lines.setdefault(peer, deque()).extend(frames)

    def flush(self) -> dict[bytes, tuple[Peer, Exception]]:
        """Send what waits, as far as links take it now; returns the jobs whose frames can never be sent: to whom, and
        why."""
        failed: dict[bytes, tuple[Peer, Exception]] = {}
        for peer, line in list(self._lines.items()):
            while line:
                message = self._message(peer, line)
                try:
                    self._send(peer, *message)
                except LinkFull:
                    self.num_full += 1
                    break
                except Exception as error:  # left in the line, it would be in everybody's way for good
                    failed |= dict.fromkeys((frame.job for frame in message), (peer, error))
                for _ in message:
                    line.popleft()
            if not line:
                del self._lines[peer]
        return failed

    def is_back(self, peer: Peer) -> None:
        """The connection to a peer broke and is there again: with the next `flush` each job's last words leave again.

        Not those of a job that waits in line: its last words have not been on their way.
        """
        waiting = {frame.job for frame in self._lines.get(peer, ())}
        for (to, job), last in self._last.items():
            if to == peer and job not in waiting:
                self._lines.setdefault(peer, deque()).extend(last.frames)

    def is_gone(self, peer: Peer) -> None:
        """A peer is away for longer than any job waits for it: nobody will take what is left of theirs."""
        self._lines.pop(peer, None)

    def leave(self, peer: Peer, job: bytes) -> None:
        """A peer is in a job no more: nothing of it that waits or is kept is for it."""
        self._last.pop((peer, job), None)
        for lines in (self._lines, self._gathered or {}):
            line = lines.pop(peer, deque())
            if kept := deque(frame for frame in line if frame.job != job):
                lines[peer] = kept

    def ended(self, job: bytes, failed: bool, now: float) -> None:
        """A job is over. Of one that failed nothing but that matters."""
        for (_, name), last in self._last.items():
            if name == job:
                last.ended_at = now
        if failed:
            self._lines = _without(self._lines, job)
            if self._gathered is not None:
                self._gathered = _without(self._gathered, job)

    def forget_ended_before(self, then: float) -> None:
        """Nobody will ask for the last words of jobs that ended before."""
        self._last = {key: last for key, last in self._last.items() if last.ended_at is None or last.ended_at >= then}

    def _remember(self, peer: Peer, frame: wire.JobFrame) -> None:
        if isinstance(frame, wire.Ready):
            return
        last = self._last.setdefault((peer, frame.job), _LastWords())
        if isinstance(frame, wire.Hidden | wire.Failed):  # one is all that can matter, and hidden states are large
            last.frames.clear()
        last.frames.append(frame)

    def _message(self, peer: Peer, line: deque[wire.JobFrame]) -> list[wire.JobFrame]:
        """The frames at the head of a line that go into one message: one at least."""
        if not self._may_join(peer):
            return [line[0]]
        message, num_bytes = list[wire.JobFrame](), 0
        for frame in itertools.islice(line, wire.MAX_MESSAGE_FRAMES):
            num_bytes += memoryview(getattr(frame, "payload", b"")).nbytes
            if message and num_bytes > MAX_MESSAGE_BYTES:
                break
            message.append(frame)
        return message


def _without(lines: dict[Peer, deque[wire.JobFrame]], job: bytes) -> dict[Peer, deque[wire.JobFrame]]:
    """Lines without a job's frames, but for those that say that it failed; none of them empty."""
    kept = {
        peer: deque(frame for frame in line if frame.job != job or isinstance(frame, wire.Failed))
        for peer, line in lines.items()
    }
    return {peer: line for peer, line in kept.items() if line}
