"""The part of the store that lets people in: nonces of sign-ins, and API keys by their hashes."""

from __future__ import annotations

import time

from sqlalchemy import Engine, delete, func, insert, select

from declai.api.errors import Overloaded
from declai.api.store.schema import api_keys, signin_nonces

# Anyone may ask for a nonce; nobody may fill the disk with them.
MAX_SIGNIN_NONCES = 10_000


class KeyTables:
    """Methods block and are one transaction each."""

    engine: Engine

    def add_signin_nonce(self, nonce: str, expires_at: float) -> None:
        """Remember a nonce for one sign-in. Raises Overloaded when too many wait to be used."""
        with self.engine.begin() as db:
            db.execute(delete(signin_nonces).where(signin_nonces.c.expires_at < time.time()))
            waiting = db.execute(select(func.count()).select_from(signin_nonces)).scalar_one()
            if waiting >= MAX_SIGNIN_NONCES:
                raise Overloaded(f"{waiting} sign-ins are under way: try again in a few minutes")
            db.execute(insert(signin_nonces).values(nonce=nonce, expires_at=expires_at))

    def take_signin_nonce(self, nonce: str) -> bool:
        """Use a nonce up; whether it was there and fresh."""
        with self.engine.begin() as db:
            fresh = signin_nonces.c.expires_at >= time.time()
            return db.execute(delete(signin_nonces).where(signin_nonces.c.nonce == nonce, fresh)).rowcount == 1

    def add_api_key(self, key_hash: str, session: str, payer: str, expires_at: float) -> None:
        with self.engine.begin() as db:
            values = {"key_hash": key_hash, "session": session, "payer": payer, "expires_at": expires_at}
            db.execute(insert(api_keys).values(**values, revoked=False))

    def api_key(self, key_hash: str) -> tuple[str, str] | None:
        """(session, payer) of a key that is neither expired nor revoked."""
        with self.engine.connect() as db:
            row = db.execute(select(api_keys).where(api_keys.c.key_hash == key_hash)).first()
        if row is None or row.revoked or row.expires_at < time.time():
            return None
        return row.session, row.payer
