"""Steps of a start: their order, their undo, and what an error says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)

import pytest

from declai.protocol.startup import explained, started, started_async


def step(name: str, error: Exception | None = None) -> Callable[[list[str]], AbstractContextManager[None]]:
    """Writes down when it is taken and undone; `error`: fails instead."""

    @contextmanager
    def take(parts: list[str]) -> Iterator[None]:
        if error is not None:
            raise error
        parts.append(f"+{name}")
        try:
            yield
        finally:
            parts.append(f"-{name}")

    take.__name__ = name
    return take


def on_the_loop(
    take: Callable[[list[str]], AbstractContextManager[None]],
) -> Callable[[list[str]], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def later(parts: list[str]) -> AsyncIterator[None]:
        with take(parts):
            yield

    later.__name__ = take.__name__
    return later


Steps = list[Callable[[list[str]], AbstractContextManager[None]]]


def run_here(parts: list[str], steps: Steps, fails: bool = False) -> None:
    with started(parts, steps) as given:
        given.append("runs")
        if fails:
            raise ValueError("while it ran")


def run_on_a_loop(parts: list[str], steps: Steps, fails: bool = False) -> None:
    async def run() -> None:
        async with started_async(parts, [on_the_loop(take) for take in steps]) as given:
            given.append("runs")
            if fails:
                raise ValueError("while it ran")

    asyncio.run(run())


@pytest.mark.parametrize("run", [run_here, run_on_a_loop])
@pytest.mark.parametrize("fails", [False, True])
def test_steps_are_undone_in_reverse_order(run: Callable[..., None], fails: bool) -> None:
    parts: list[str] = []
    with pytest.raises(ValueError, match="while it ran") if fails else nullcontext():
        run(parts, [step("store"), step("links"), step("services")], fails)
    assert parts == ["+store", "+links", "+services", "runs", "-services", "-links", "-store"]


@pytest.mark.parametrize("run", [run_here, run_on_a_loop])
def test_a_step_that_fails_is_named_and_the_steps_before_it_are_undone(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    parts: list[str] = []
    caplog.set_level(logging.DEBUG, "declai.protocol.startup")
    with pytest.raises(OSError, match="address in use") as caught:
        run(parts, [step("store"), step("links", OSError("address in use")), step("services")])
    assert parts == ["+store", "-store"]
    assert explained(caught.value) == "address in use; the start failed at the step links"
    assert caplog.messages == ["starting: store", "starting: links", "stopping: store"]
