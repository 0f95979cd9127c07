"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def pause() -> None:
    time.sleep(0.01)


def wait_until(
    condition: Callable[[], Value],
    what: str | Callable[[], object] = "what the test waits for",
    timeout_s: float = 20.0,
    meanwhile: Callable[[], object] = pause,
) -> Value:
    """The condition's value once it is true; `meanwhile` runs as long as it is not.

    Fails after `timeout_s` with `what` did not happen, or with what it answers then.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen in {timeout_s:g} s" if isinstance(what, str) else what())
        meanwhile()
    return value
