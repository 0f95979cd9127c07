"""What `Scheduler.next_step` answers: a step to run now, or how long to wait for one that is worth it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """A sequence's part of a step: its positions [first_position, first_position + num_tokens), the first ones of which
    are `num_prompt_tokens` of its prompt."""

    sequence_id: bytes
    first_position: int
    num_tokens: int
    num_prompt_tokens: int

    @property
    def end(self) -> int:
        return self.first_position + self.num_tokens


@dataclass(frozen=True)
class EngineStep:
    """One forward: a chunk of each of its sequences, at least one, those that decode first."""

    chunks: list[Chunk]

    @property
    def num_prompt_tokens(self) -> int:
        return sum(chunk.num_prompt_tokens for chunk in self.chunks)

    @property
    def num_decoding(self) -> int:
        """Sequences of which it computes more than prompt."""
        return sum(chunk.num_tokens > chunk.num_prompt_tokens for chunk in self.chunks)


@dataclass(frozen=True)
class Wait:
    """More may come that goes with what waits; None while nothing does."""

    seconds: float | None
