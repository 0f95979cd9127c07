"""What people import: `from declai import Client, AsyncClient`. The heavy parts load when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from declai.client.aio import AsyncClient as AsyncClient
    from declai.client.sync import Client as Client

__all__ = ["AsyncClient", "Client", "__version__"]

# The one place that says it: the wheel, the gateway's OpenAPI page and `declai --version` read it here.
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name == "Client":
        from declai.client.sync import Client

        return Client
    if name == "AsyncClient":
        from declai.client.aio import AsyncClient

        return AsyncClient
    raise AttributeError(f"module 'declai' has no attribute {name!r}")
