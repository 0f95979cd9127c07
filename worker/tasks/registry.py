"""What a node asks the chain about others, with short memory: who is a gateway, who holds a link key, whose session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from declai.chain.client import Chain
from declai.chain.contracts.nodes import Role
from declai.chain.errors import ChainError

T = TypeVar("T")

KNOWN_FOR_S = 60.0
UNKNOWN_FOR_S = 2.0
MAX_ENTRIES = 10_000


class PeerRegistry(Protocol):
    """The questions. Answers may be up to a minute old; no answer means no."""

    def gateway_of(self, signer: str) -> str | None:
        """Operator of the active gateway that this address signs for."""

    def holder_of(self, link_key: bytes) -> str | None:
        """Operator of the active node or gateway whose current link key this is."""

    def holder_at(self, link_key: bytes, endpoint: str) -> str | None:
        """The same, where this is also the endpoint that it registered."""

    def session_key(self, session: bytes, gateway: str) -> str | None:
        """Key of an open session with this gateway."""


class ChainPeerRegistry:
    """The answers from the contracts. Thread-safe; calls block for as long as the RPC does."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._lock = threading.Lock()
        self._answers: dict[tuple[object, ...], tuple[float, object]] = {}

    def gateway_of(self, signer: str) -> str | None:
        return self._remembered(("gateway", signer), lambda: self._gateway_of(signer))

    def holder_of(self, link_key: bytes) -> str | None:
        return self._remembered(("link", link_key), lambda: self._holder_of(link_key))

    def holder_at(self, link_key: bytes, endpoint: str) -> str | None:
        # A question of its own for each endpoint: who moved is asked about anew.
        return self._remembered(("at", link_key, endpoint), lambda: self._holder_of(link_key, endpoint))

    def session_key(self, session: bytes, gateway: str) -> str | None:
        return self._remembered(("session", session, gateway), lambda: self._session_key(session, gateway))

    def _gateway_of(self, signer: str) -> str | None:
        operator = self._chain.nodes.operator_of(signer)
        if not int(operator, 16) or not self._chain.nodes.is_active(operator, Role.GATEWAY):
            return None
        return operator

    def _holder_of(self, link_key: bytes, endpoint: str | None = None) -> str | None:
        nodes = self._chain.nodes
        operator = nodes.operator_of_link_key(link_key)
        if not int(operator, 16):
            return None
        node = nodes.node(operator)
        if node.link_key != link_key or endpoint not in (None, node.endpoint):
            return None
        return operator if any(nodes.is_active(operator, role) for role in Role) else None

    def _session_key(self, session: bytes, gateway: str) -> str | None:
        state = self._chain.ledger.session(session)
        return state.key if state.exists and state.gateway == gateway else None

    def _remembered(self, question: tuple[object, ...], ask: Callable[[], str | None]) -> str | None:
        now = time.monotonic()
        with self._lock:
            until, answer = self._answers.get(question, (0.0, None))
        if now < until:
            return answer  # type: ignore[return-value]
        try:
            fresh = ask()
        except ChainError:
            return None  # the chain is out of reach: nobody new is believed, those known stay so until they expire
        with self._lock:
            if len(self._answers) >= MAX_ENTRIES:
                self._answers.clear()
            self._answers[question] = (now + (KNOWN_FOR_S if fresh else UNKNOWN_FOR_S), fresh)
        return fresh
