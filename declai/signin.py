"""Signing in at a gateway with a wallet (EIP-4361), for an API key that is bound to one session."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
from eth_account.signers.local import LocalAccount
from pydantic_core import from_json

from declai.chain.messages import sign_text
from declai.errors import ApiError
from declai.protocol.siwe import compose

STATEMENT = "Give out an API key that can spend this DeCLAI session."


def sign_in(url: str, account: LocalAccount, session: str, chain_id: int) -> str:
    """The API key for a session whose key is the gateway's.

    Raises:
        ApiError: the gateway refuses or does not answer.
    """
    try:
        with httpx.Client(base_url=url, timeout=30) as client:
            challenge = from_json(client.get("/v1/auth/nonce").raise_for_status().content)
            message = compose(
                domain=challenge["domain"],
                uri=challenge["uri"],
                address=account.address,
                chain_id=chain_id,
                nonce=challenge["nonce"],
                issued_at=datetime.now(UTC),
                statement=STATEMENT,
                resources=(f"declai:session:{session}",),
            )
            signature = "0x" + sign_text(message, account).hex()
            response = client.post("/v1/auth/login", json={"message": message, "signature": signature})
            if response.status_code != 200:
                raise ApiError(from_json(response.content)["error"]["message"], status=response.status_code)
            return str(from_json(response.content)["api_key"])
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise ApiError(f"signing in at {url} failed: {error!r}") from None
