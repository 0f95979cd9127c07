"""Celery's transport for an account that can only pop: kombu's Redis channel without any write.

Stock kombu writes on three occasions: to declare bindings, to count a queue, to give tasks back at shutdown. Bindings
are known here, nobody needs the count, and a task not run is dispatched again by the gateway. What comes out of the
queue is checked before Celery sees it, and Celery sees a message made here: garbage could end a worker process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from queue import Empty
from typing import Any, ClassVar

import redis
from kombu.transport.redis import Channel, Transport
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from declai.protocol.errors import MalformedTask
from declai.protocol.tasks import parse_task_message, task_fields
from declai.worker.errors import BrokerError

log = logging.getLogger(__name__)

MIN_SECONDS_BETWEEN_JOINS = 2.0
Rejoin = Callable[[], tuple[str, str]]


class BrokerAccount(CredentialProvider):
    """A node's name and password at the broker; asks for a new password when the broker no longer knows the old one.

    A Redis that restarts has forgotten its accounts, and a gateway may take one back: then `rejoin` is called, at most
    every two seconds. It returns (username, password) or raises BrokerError.
    """

    def __init__(self, name: str, password: str, rejoin: Rejoin) -> None:
        self._credentials = (name, password)
        self._rejoin = rejoin
        self._tried_at = -MIN_SECONDS_BETWEEN_JOINS

    def get_credentials(self) -> tuple[str, str]:
        return self._credentials

    def renew(self) -> bool:
        """Called when the broker refused the credentials; whether there are new ones."""
        if time.monotonic() - self._tried_at < MIN_SECONDS_BETWEEN_JOINS:
            return False
        self._tried_at = time.monotonic()
        try:
            self._credentials = self._rejoin()
        except BrokerError as error:
            log.warning("cannot join the gateway again: %s", error)
            return False
        return True


class _Connection(redis.Connection):
    def on_connect_check_health(self, check_health: bool = True) -> None:
        try:
            super().on_connect_check_health(check_health)
        except AuthenticationError:
            if not (isinstance(self.credential_provider, BrokerAccount) and self.credential_provider.renew()):
                raise
            super().on_connect_check_health(check_health)


class _SSLConnection(redis.SSLConnection, _Connection):
    pass


class PopOnlyChannel(Channel):
    """BRPOP and PING, nothing else."""

    supports_fanout = False
    connection_class = _Connection
    connection_class_ssl = _SSLConnection
    account: ClassVar[BrokerAccount]

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]
        del parameters["username"], parameters["password"]
        return parameters | {"credential_provider": self.account}

    def _size(self, queue: str) -> int:
        return 0

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        log.warning("a task that was not started is left to the gateway's deadline")

    def _brpop_read(self, **options: Any) -> bool:
        """Take the answer of a BRPOP under way, as kombu's own method does, but check it and build it anew.

        kombu would give the item to `json.loads`, which a deep enough nesting ends with a segmentation fault.
        """
        try:
            popped = self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()  # so that the next round connects again
            raise
        finally:
            self._in_poll: Any = None
        if not popped:
            raise Empty
        key, item = popped
        try:
            task_id, envelope = parse_task_message(item)
        except MalformedTask as error:
            log.warning("dropped a queue item: %s", error)
            raise Empty from None
        self.connection._deliver(task_fields(envelope, task_id), key.decode() if isinstance(key, bytes) else key)
        return True


def transport_for(account: BrokerAccount) -> type[Transport]:
    """A transport class whose connections log in as this account."""
    channel = type("Channel", (PopOnlyChannel,), {"account": account})
    return type("Transport", (Transport,), {"Channel": channel})
