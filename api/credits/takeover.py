"""One of several gateway processes: says that it lives, and ends what dead ones left."""

from __future__ import annotations

import logging
import threading

import redis
from sqlalchemy.exc import SQLAlchemyError

from declai.api.credits.reservations import Reservations
from declai.api.store.processes import DEAD_AFTER_S
from declai.api.store.store import Store

logger = logging.getLogger(__name__)
BEAT_EVERY_S = 1.0
ABANDONED = "the gateway process that served this request ended; nothing is charged"


class Takeover:
    """A thread of its own: a busy event loop must not look dead."""

    def __init__(self, store: Store, reservations: Reservations) -> None:
        self._store = store
        self._reservations = reservations
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="takeover", daemon=True)

    def start(self) -> None:
        """Make this process known, and end what nobody owns."""
        self._store.beat()
        self._end_abandoned()
        if self._store.is_alone():
            # Redis may have come back with an older state than it had. Nobody else can be using it now.
            self._reservations.forget_all()
        self._thread.start()

    def close(self) -> None:
        """This process serves no more; the others need not wait to see it."""
        self._ended.set()
        self._thread.join()
        try:
            self._store.leave()
        except SQLAlchemyError as error:
            logger.warning("the store does not take the leave of this process, others will miss it: %s", error)

    def look(self) -> None:
        """One beat, and a look at the others."""
        silent_s = self._store.beat()
        if silent_s is None:
            logger.warning("this process was silent for so long that another one took it for dead")
        elif silent_s < DEAD_AFTER_S / 2:
            # A process that was late itself judges no other: the database was away, or its clock was put forward.
            self._bury()
        self._end_abandoned()

    def _bury(self) -> None:
        dead = self._store.bury_silent()
        for name in dead:
            logger.warning("gateway process %s is dead: what it ran ends", name)
        if dead and self._store.is_alone():
            self._end_abandoned()
            self._reservations.forget_all()

    def _end_abandoned(self) -> None:
        abandoned = self._store.abandoned()
        for session, request in abandoned:
            # Whoever ended it in the meantime releases what it reserved, and knows what it cost.
            if self._store.fail_request(request, ABANDONED):
                self._reservations.release(session, request, 0)
        if abandoned:
            logger.warning("%d requests had no process any more: they cost nothing", len(abandoned))

    def _run(self) -> None:
        while not self._ended.wait(BEAT_EVERY_S):
            try:
                self.look()
            except (SQLAlchemyError, redis.RedisError) as error:
                logger.warning("cannot look after the gateway's processes now: %s", error)
            except Exception:  # one bad look must not let this process seem dead
                logger.exception("looking after the gateway's processes failed, trying again")
