"""A node's membership at its gateway: the signed request to join, and the broker account that comes back."""

from __future__ import annotations

import secrets
import time

import httpx
from eth_account.signers.local import LocalAccount
from pydantic import ValidationError

from declai.chain.messages import sign_text
from declai.protocol.joining import JoinAnswer, JoinRequest, join_text
from declai.protocol.tasks import key_prefix, username
from declai.protocol.wire import VERSION
from declai.worker.errors import BrokerError
from declai.worker.tasks.registry import PeerRegistry

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 16 * 1024


class Membership:
    """Joins one gateway as one node, as often as needed. `account` is the node's signer."""

    def __init__(
        self, url: str, gateway: str, chain_id: int, operator: str, account: LocalAccount, registry: PeerRegistry
    ) -> None:
        self._url = url
        self._gateway = gateway
        self._chain_id = chain_id
        self._operator = operator
        self._account = account
        self._registry = registry

    def join(self) -> JoinAnswer:
        """Ask for an account; an older one ends. Raises BrokerError when there is none, for whatever reason."""
        nonce, timestamp = secrets.token_hex(16), int(time.time())
        text = join_text(self._gateway, self._chain_id, self._operator, timestamp, nonce)
        signature = sign_text(text, self._account)
        request = JoinRequest(
            address=self._operator, timestamp=timestamp, nonce=nonce, signature=signature, wire_version=VERSION
        )
        try:
            body = request.model_dump(mode="json")
            response = httpx.post(f"{self._url}/v1/nodes/join", json=body, timeout=TIMEOUT_S)
        except httpx.HTTPError as error:
            raise BrokerError(f"{self._url} does not answer: {type(error).__name__}") from error
        if response.status_code != 200:
            raise BrokerError(f"{self._url} refused: HTTP {response.status_code} {response.text[:300]}")
        return self._checked(response.content)

    def _checked(self, content: bytes) -> JoinAnswer:
        if len(content) > MAX_ANSWER_BYTES:
            raise BrokerError("the gateway's answer is too long")
        try:
            answer = JoinAnswer.model_validate_json(content)
        except ValidationError as error:
            raise BrokerError(f"the gateway's answer has {error.error_count()} errors") from None
        if (answer.username, answer.key_prefix) != (username(self._operator), key_prefix(self._operator)):
            raise BrokerError("the gateway's answer is for another node")
        if answer.gateway.address != self._gateway:
            raise BrokerError(f"gateway {answer.gateway.address} answered, not {self._gateway}")
        if answer.gateway.relay is not None or self._registry.holder_of(answer.gateway.link_key) != self._gateway:
            raise BrokerError("the gateway's link key is not the one in the registry")
        return answer
