"""A payer's wallet on chain: deposits, sessions, and the session keys that this machine keeps for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from declai.chain.client import Chain
from declai.chain.keystore import SCRYPT_LIGHT, address_of, decrypt, encrypt
from declai.chain.messages import new_account
from declai.chain.pricing import format_credits
from declai.chain.sender import TransactionSender
from declai.client.book import SessionBook, SessionRecord
from declai.client.session import SessionWallet
from declai.errors import SessionError, WalletError


class Payer:
    """One wallet on one network. Blocking; the wallet is unlocked only by what sends a transaction."""

    def __init__(
        self,
        chain: Chain,
        book: SessionBook,
        *,
        gateway_url: str,
        keystore: Path,
        password: Callable[[], str | None],
        unlock: Callable[[], LocalAccount],
    ) -> None:
        self._chain = chain
        self._book = book
        self._gateway_url = gateway_url
        self._keystore = keystore
        self._password = password
        self._unlock = unlock

    @property
    def address(self) -> str:
        found = address_of(self._keystore)
        if found is None:
            raise WalletError(f"{self._keystore} does not name its address")
        return str(to_checksum_address(found))

    def records(self) -> list[SessionRecord]:
        """This machine's sessions of the wallet, newest first."""
        deployment = self._chain.deployment
        return self._book.sessions(deployment.chain_id, deployment.contracts["InferenceLedger"], self.address)

    def record(self, session: str | None) -> SessionRecord:
        """A session by id, or the newest one that is not closed.

        Raises:
            SessionError: there is none.
        """
        for record in self.records():
            if (session is None and not record.closed) or record.id == session:
                return record
        named = f"session {session} is not on this machine" if session else f"no open session of {self.address}"
        raise SessionError(f"{named}: open one with `declai session open --budget 10`")

    def record_to_close(self, session: str | None) -> SessionRecord:
        """Like `record`; when no session is open, the newest one that the ledger still holds."""
        try:
            return self.record(session)
        except SessionError:
            for record in self.records() if session is None else ():
                if self._chain.ledger.session(bytes.fromhex(record.id[2:])).exists:
                    return record
            raise

    def open_wallet(self, session: str | None) -> SessionWallet:
        """The session's wallet, its key unlocked."""
        record = self.record(session)
        password = self._password()
        if password is None:
            raise SessionError("the session's key is locked: name a file with --password-file")
        return SessionWallet(self._book, record, decrypt(record.keystore, password, f"the key of {record.id}"))

    def deposit(self, amount: int) -> Any:
        """Move base units from the wallet into the ledger; returns the receipt."""
        account = self._unlock()
        sender = TransactionSender(self._chain, account)
        ledger = self._chain.ledger
        if self._chain.token.allowance(account.address, ledger.address) < amount:
            sender.send(self._chain.token.approve(ledger.address, amount))
        return sender.send(ledger.deposit(amount))

    def open_session(self, budget: int, duration_s: int, gateway: str, key: str | None = None) -> SessionRecord:
        """Lock a budget, depositing what the ledger's balance lacks; the session is in the book when this returns.

        Args:
            key: address of a key that somebody else holds (a gateway's, for API keys); else a fresh one is kept here.

        Raises:
            SessionError: the wallet does not have that much.
        """
        account = self._unlock()
        missing = budget - self._chain.ledger.balance_of(account.address)
        if missing > self._chain.token.balance_of(account.address):
            raise SessionError(
                f"{account.address} has not enough credits for a budget of {format_credits(budget)}: "
                f"{format_credits(missing)} more are needed in its wallet"
            )
        if missing > 0:
            self.deposit(missing)
        session_key, keystore = key, ""
        if session_key is None:
            password = self._password()
            if password is None:
                raise SessionError("a session's key needs a password: name a file with --password-file")
            fresh = new_account()
            session_key, keystore = fresh.address, encrypt(fresh, password, SCRYPT_LIGHT)
        sender = TransactionSender(self._chain, account)
        receipt = sender.send(self._chain.ledger.open_session(gateway, session_key, budget, duration_s))
        events = (self._chain.ledger.decode(log) for log in receipt["logs"])
        opened = next(event for event in events if event is not None and event.name == "SessionOpened")
        record = SessionRecord(
            id="0x" + opened.values["session"].hex(),
            chain_id=self._chain.deployment.chain_id,
            ledger=self._chain.ledger.address,
            gateway=str(to_checksum_address(gateway)),
            gateway_url=self._gateway_url,
            payer=account.address,
            keystore=keystore,
            budget=budget,
            opened_at=time.time(),
        )
        if keystore:
            self._book.add_session(record)
        return record

    def top_up(self, session: str, amount: int) -> int:
        """Add to a session's budget; returns the new budget in base units."""
        account = self._unlock()
        missing = amount - self._chain.ledger.balance_of(account.address)
        if missing > 0:
            self.deposit(missing)
        raw = bytes.fromhex(session[2:])
        TransactionSender(self._chain, account).send(self._chain.ledger.top_up(raw, amount))
        budget = self._chain.ledger.session(raw).budget
        self._book.set_budget(session, budget)
        return budget

    def close_session(self, session: str) -> int:
        """End a session; returns the Unix time from which the rest can be had back (a second call fetches it)."""
        account = self._unlock()
        sender, raw = TransactionSender(self._chain, account), bytes.fromhex(session[2:])
        state = self._chain.ledger.session(raw)
        if not state.exists:
            raise SessionError(f"session {session} is not open on chain")
        closes_at = state.ends_at + self._chain.ledger.thaw_period_s()
        if closes_at <= time.time():
            sender.send(self._chain.ledger.finalize_close(raw))
        elif state.ends_at > time.time():
            sender.send(self._chain.ledger.close_session(raw))
            closes_at = self._chain.ledger.session(raw).ends_at + self._chain.ledger.thaw_period_s()
        self._book.mark_closed(session)
        return closes_at
