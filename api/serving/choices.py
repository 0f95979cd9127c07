"""Several requests that are one answer's choices, as their reader sees them: one stream of all their pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from declai.api.errors import GatewayError
from declai.api.serving.running import Arrivals, End, Piece, Running

Item = tuple[int, Piece | End]


class Choices:
    """Requests under way, by the choice that each makes."""

    def __init__(self, running: Sequence[Running], arrivals: Arrivals) -> None:
        """`arrivals`: where all of them put what they make."""
        self.running = running
        self._arrivals = arrivals

    def cancel(self) -> None:
        """The reader wants no more of any of them. What was made is charged."""
        for running in self.running:
            running.cancel()

    async def items(self) -> AsyncIterator[Item]:
        """(choice, piece) as they come, each choice's End last. To be closed by whoever leaves early.

        Raises:
            GatewayError: one of them failed; the others were cancelled.
        """
        num_open = len(self.running)
        try:
            while num_open:
                choice, item = await self._arrivals.get()
                if isinstance(item, GatewayError):
                    raise self._told(choice, item)
                num_open -= isinstance(item, End)
                yield choice, item
        finally:
            self.cancel()  # those that ended take no notice

    def _told(self, choice: int, error: GatewayError) -> GatewayError:
        if len(self.running) > 1:
            error.message = f"choice {choice}: {error.message}; the others are charged for what they made"
        return error
