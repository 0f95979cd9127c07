"""Which requests of a session the next batch pays, and which its claim must list. Pure.

A claim's debit is the newest request's acknowledged total, plus all that it lists, less what is settled. It equals what
the batch pays when every unsettled request up to the newest is a member, and the newest lies above all settled ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from declai.api.store.records import Claimable, StoredRequest

# JSON of a receipt with its request, assignment and signatures; records come on top, in hex.
ENTRY_BYTES = 3_000


@dataclass(frozen=True)
class Room:
    """What may still enter a batch."""

    num_claims: int
    num_receipts: int
    num_bytes: int


@dataclass(frozen=True)
class SessionClaim:
    """A session's part of a batch. `listed` go to the ledger, by nonce, the newest last; `members` are paid now."""

    listed: list[StoredRequest]
    members: list[StoredRequest]
    num_receipts: int
    num_bytes: int

    @property
    def debit(self) -> int:
        """Base units that the members cost."""
        return sum(request.cost for request in self.members)

    @property
    def settled_before(self) -> int:
        """What the ledger must have settled of the session for the debit to be that, in base units."""
        total = self.listed[-1].message.spent + sum(request.cost for request in self.listed)
        return total - self.debit

    def taken_from(self, room: Room) -> Room:
        """The room that is left beside this claim."""
        return Room(
            room.num_claims - len(self.listed), room.num_receipts - self.num_receipts, room.num_bytes - self.num_bytes
        )


def choose_claim(rows: Sequence[Claimable], room: Room, *, alone: bool) -> SessionClaim | None:
    """The largest claim of a session that fits, or None.

    `rows` as `Store.claimable` gives them. `alone`: nothing else is in the batch, so the smallest claim there is
    goes in whatever its size, lest a session wait for ever.
    """
    nonces = [row.nonce for row in rows]
    newest_settled = max((row.nonce for row in rows if row.settled), default=-1)
    smallest_end = largest_end = 0
    num_members = num_receipts = num_bytes = 0
    for end, row in enumerate(rows, start=1):
        if not row.settled:
            num_members += 1
            num_receipts += row.num_receipts
            num_bytes += _entry_bytes(row)
        if row.nonce < newest_settled or not num_members:
            continue
        smallest_end = smallest_end or end
        if num_receipts > room.num_receipts or num_bytes > room.num_bytes:
            break  # members only grow from here on; what must be listed may shrink again
        num_listed = end - bisect_left(nonces, row.request.message.acked_below)
        if num_listed <= room.num_claims:
            largest_end = end
    end = largest_end or (smallest_end if alone else 0)
    return _claim(rows[:end]) if end else None


def _entry_bytes(row: Claimable) -> int:
    return row.num_receipts * ENTRY_BYTES + 2 * row.record_bytes


def _claim(rows: Sequence[Claimable]) -> SessionClaim:
    newest = rows[-1].request
    members = [row for row in rows if not row.settled]
    return SessionClaim(
        listed=[row.request for row in rows if row.nonce >= newest.message.acked_below],
        members=[row.request for row in members],
        num_receipts=sum(row.num_receipts for row in members),
        num_bytes=sum(map(_entry_bytes, members)),
    )
