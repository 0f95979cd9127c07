"""JSON from a gateway: one place that knows what can go wrong on the way."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic_core import from_json

from declai.errors import ApiError

TIMEOUT_S = 10.0


def get_json(base_url: str, path: str) -> Any:
    """What `GET base_url/path` answers, parsed by a parser that bounds nesting.

    Raises:
        ApiError: nobody answers, or not with 200 and JSON.
    """
    try:
        return from_json(httpx.get(f"{base_url}{path}", timeout=TIMEOUT_S).raise_for_status().content)
    except (httpx.HTTPError, ValueError) as error:
        raise ApiError(f"the gateway at {base_url} does not answer {path}: {error!r}") from None
