"""The base of all messages between parties: nothing unknown is taken, nothing changes later."""

from __future__ import annotations

import json

from eth_account.signers.local import LocalAccount
from pydantic import BaseModel, ConfigDict

from declai.chain.messages import sign_text


class ProtocolMessage(BaseModel):
    """Frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def signed_text(self, account: LocalAccount) -> tuple[str, bytes]:
        """(JSON text, EIP-191 signature over it). The text is what travels: nobody makes it again to check it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return text, sign_text(text, account)
