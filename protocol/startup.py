"""How a program of the network starts: one named step after the other, each with its undo.

A step is a function that takes what the program consists of and returns a context manager: entering it opens one part,
leaving it closes that part. Its name is the function's own.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import TypeVar

logger = logging.getLogger(__name__)
Parts = TypeVar("Parts")


@contextmanager
def started(parts: Parts, steps: Sequence[Callable[[Parts], AbstractContextManager[None]]]) -> Iterator[Parts]:
    """Take the steps in order, and undo them in reverse order when the block ends or a later step fails.

    What a step raises keeps its type, and gets a note that names the step (see `explained`).
    """
    with ExitStack() as undo:
        for step in steps:
            with _named(step.__name__):
                undo.enter_context(step(parts))
            undo.callback(logger.debug, "stopping: %s", step.__name__)
        yield parts


@asynccontextmanager
async def started_async(
    parts: Parts, steps: Sequence[Callable[[Parts], AbstractAsyncContextManager[None]]]
) -> AsyncIterator[Parts]:
    """The same with steps that wait on the event loop."""
    async with AsyncExitStack() as undo:
        for step in steps:
            with _named(step.__name__):
                await undo.enter_async_context(step(parts))
            undo.callback(logger.debug, "stopping: %s", step.__name__)
        yield parts


def explained(error: BaseException) -> str:
    """The error's text with its notes, on one line."""
    return "; ".join([str(error), *getattr(error, "__notes__", [])])


@contextmanager
def _named(step: str) -> Iterator[None]:
    logger.debug("starting: %s", step)
    try:
        yield
    except Exception as error:
        error.add_note(f"the start failed at the step {step}")
        raise
