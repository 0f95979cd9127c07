"""Receipts on their way to gateways: sent again, ever more slowly, until accepted. They also lie in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from declai.links.errors import LinkError
from declai.protocol.peers import Peer
from declai.protocol.wire import Receipt, ReceiptAck

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
MAX_WAITING = 2_000


@dataclass
class _Waiting:
    peer: Peer
    frame: Receipt
    next_at: float
    delay_s: float
    answered: bool = False


class Outbox:
    """Used by the engine thread alone. Beyond `MAX_WAITING` the oldest are left to the store."""

    def __init__(self, send: Callable[[Peer, Receipt], None], on_acknowledged: Callable[[bytes, bytes], None]) -> None:
        """`on_acknowledged(job, acceptance)` has the word checked and kept; `remove` follows when it holds."""
        self._send = send
        self._on_acknowledged = on_acknowledged
        self._waiting: dict[bytes, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def peers(self) -> list[Peer]:
        return [waiting.peer for waiting in self._waiting.values()]

    def put(self, peer: Peer, frame: Receipt, now: float) -> None:
        while len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[frame.job] = _Waiting(peer, frame, now, FIRST_RETRY_S)
        self.send_again(now)

    def send_again(self, now: float) -> None:
        """Send what is due."""
        for waiting in self._waiting.values():
            if now >= waiting.next_at:
                waiting.next_at = now + waiting.delay_s
                waiting.delay_s = min(2 * waiting.delay_s, LAST_RETRY_S)
                waiting.answered = False
                try:
                    self._send(waiting.peer, waiting.frame)
                except LinkError:
                    continue

    def acknowledge(self, sender: bytes, frame: ReceiptAck) -> bool:
        """Whether this sender had a receipt of that job to acknowledge."""
        waiting = self._waiting.get(frame.job)
        if waiting is None or waiting.peer.link_key != sender:
            return False
        if not waiting.answered:  # one answer a sending is looked at: checking costs more than sending
            waiting.answered = True
            self._on_acknowledged(frame.job, frame.acceptance)
        return True

    def remove(self, job: bytes) -> None:
        """The receipt is where it belongs, and so is the gateway's word."""
        self._waiting.pop(job, None)
