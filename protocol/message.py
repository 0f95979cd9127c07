"""The base of all messages between parties: nothing unknown is taken, nothing changes later."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ProtocolMessage(BaseModel):
    """Frozen, and closed to unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
