"""What leaves a job for the stage after it: once to everyone there, and once more to a node that took another's place.

A node that takes a place has nothing of the job, so it is sent all that was committed to, from position 0 on, in the
very bytes in which it went to the node before it. Meanwhile nothing else is sent to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from declai.protocol import wire
from declai.protocol.jobs import StageJob
from declai.protocol.peers import Peer
from declai.protocol.rows import encode_rows
from declai.worker.job.positions import Mark, Positions

# Few frames, each of them small enough to leave others a turn.
MAX_REPLAY_BYTES = 2**22
Rows = NDArray[np.uint8]


class Downstream:
    """The next stage's replicas, as one job speaks with them.

    Attributes:
        peers: who stands there now, by their numbers; empty where nobody hears this replica, or nobody is there.
        token_ids: those drawn so far, at the last stage.
    """

    def __init__(
        self,
        job: StageJob,
        positions: Positions,
        dtype: wire.Dtype,
        send: Callable[[Peer, wire.JobFrame], None],
        kept_rows: Callable[[int, int], Rows],
    ) -> None:
        """
        Args:
            positions: of the job; its mark SENT is this object's to move.
            kept_rows: what the engine handed out at positions [first, end) before. Raises RowsLost.
        """
        self._job = job
        self._positions = positions
        self._dtype = dtype
        self._send = send
        self._kept_rows = kept_rows
        self._ready: set[bytes] = set()
        # One after the other; SENT is how far the first one is.
        self._behind: deque[Peer] = deque()
        self._prompt_pieces: list[tuple[int, int]] = []
        self._row_bytes = 0
        self.peers = job.ring.listeners
        self.token_ids: list[int] = []

    @property
    def is_ready(self) -> bool:
        """Whether all after this stage can take data. Who gets tokens need not say so, for it has the prompt before."""
        return self._job.is_last or all(peer.link_key in self._ready for peer in self.peers)

    @property
    def is_behind(self) -> bool:
        """Whether `catch_up` has something to do."""
        return bool(self._behind) and self._behind[0].link_key in self._ready

    def hear_ready(self, sender: bytes) -> None:
        self._ready.add(sender)

    def is_replaced(self, peers: tuple[Peer, ...]) -> None:
        """Others stand there now; those who are new have to be sent everything."""
        first = self._behind[0] if self._behind else None
        still_behind = [peer for peer in self._behind if peer in peers]
        self._behind = deque([*still_behind, *(peer for peer in peers if peer not in self.peers)])
        self.peers = peers
        if self._behind and self._behind[0] != first:
            self._positions.truncate(0, Mark.SENT)

    def put_rows(self, first: int, rows: Rows) -> wire.Buffer:
        """Send rows that were computed now; returns them as they travel. Raises BadRows."""
        count, self._row_bytes = rows.shape
        if first < self._job.num_prompt_tokens:
            self._prompt_pieces.append((first, first + count))
        frame = self._frame(first, rows)
        skipped = max(0, self._job.ring.from_position - first)
        if skipped < count:
            payload = memoryview(frame.payload).cast("B")
            cut = payload[skipped * (payload.nbytes // count) :]
            self._send_on(wire.Hidden(frame.job, first + skipped, count - skipped, frame.dtype, cut))
        return frame.payload

    def put_token(self, frame: wire.Token) -> None:
        """Send a token that was drawn now."""
        self.token_ids.append(frame.token_id)
        if frame.position > self._job.ring.from_position:
            self._send_on(frame)

    def note_sent(self, first: int, count: int) -> None:
        """These positions were put, and committed to."""
        if not self._behind:
            self._positions.advance(Mark.SENT, first, count)

    def put_finish(self, frame: wire.Finish) -> None:
        self._send_on(frame)

    def catch_up(self) -> None:
        """Send the next piece to who is behind. Raises RowsLost."""
        positions = self._positions
        first = positions.sent
        if first < positions.committed:
            frame, end = self._token_at(first) if self._job.is_last else self._rows_at(first)
            self._send(self._behind[0], frame)
            positions.advance(Mark.SENT, first, end - first)
        if positions.sent == positions.committed:
            self._behind.popleft()
            if self._behind:
                positions.truncate(0, Mark.SENT)

    def _rows_at(self, first: int) -> tuple[wire.JobFrame, int]:
        """The frame that begins at this position, and where it ends: for a prompt, as it was sent before."""
        piece = next((piece for piece in self._prompt_pieces if piece[0] == first), None)
        if piece is None:
            piece = first, min(self._positions.committed, first + max(1, MAX_REPLAY_BYTES // self._row_bytes))
        return self._frame(first, self._kept_rows(*piece)), piece[1]

    def _token_at(self, first: int) -> tuple[wire.JobFrame, int]:
        """The first one is drawn after the whole prompt, which has nothing else to show."""
        index = max(0, first + 1 - self._job.num_prompt_tokens)
        position = self._job.num_prompt_tokens + index
        return wire.Token(self._job.job_id, index, position, self.token_ids[index]), position

    def _frame(self, first: int, rows: Rows) -> wire.Hidden:
        count = len(rows)
        in_prompt = first + count <= self._job.num_prompt_tokens
        wanted = self._job.prompt_format_out if in_prompt else "profile"
        row_format, payload = encode_rows(rows.data.cast("B"), count, self._dtype, wanted)
        return wire.Hidden(self._job.job_id, first, count, row_format, payload)

    def _send_on(self, frame: wire.JobFrame) -> None:
        for peer in self.peers:
            if peer not in self._behind:
                self._send(peer, frame)
