"""Write `sessions.db` beside this file, as release 0.1.0 (commit 0a6d093) wrote a payer's book. It was run once.

git worktree add --detach ../v1 0a6d093
cp tests/storage/v1/make_book.py ../v1/make_book_v1.py
PYTHONPATH=../v1 python ../v1/make_book_v1.py tests/storage/v1
"""

from __future__ import annotations

import sys
from pathlib import Path

from declai.client.book import RequestState, SessionBook, SessionRecord

LEDGER, GATEWAY, PAYER = ("0x" + digits * 20 for digits in ("11", "22", "33"))


def session(digits: str, opened_at: float) -> SessionRecord:
    return SessionRecord(
        id="0x" + digits * 32,
        chain_id=31337,
        ledger=LEDGER,
        gateway=GATEWAY,
        gateway_url="http://127.0.0.1:8080",
        payer=PAYER,
        keystore='{"version": 3}',
        budget=10**24,  # more than SQLite's integers hold
        opened_at=opened_at,
    )


def main(folder: Path) -> None:
    book = SessionBook(folder / "sessions.db")
    first, second = session("aa", 1000.5), session("bb", 2000.25)
    for record in (first, second):
        book.add_session(record)
    ends = [(RequestState.ACCEPTED, 10**22), (RequestState.VOID, 0), (None, 0), (RequestState.DISPUTED, 0), (None, 0)]
    for number, (state, cost) in enumerate(ends):
        ticket = book.issue(first.id, 2 * 10**22, 4_000_000_000 + number)
        if number < 4:  # the last one was never signed
            book.name(first.id, ticket.nonce, "0x" + f"{number:02x}" * 32)
        if state is not None:
            book.close_request(first.id, ticket.nonce, state, cost)
    book.mark_closed(second.id)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
