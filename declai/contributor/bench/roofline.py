"""How near timings come to what the machine can do, and what that says (the roofline of Williams et al., 2009)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from declai.contributor.bench.machine import Limits
from declai.contributor.bench.measure import Timing

BOUND = 0.5  # of a limit: from here on it is the limit that says how fast a step is


@dataclass(frozen=True)
class StepWork:
    """What steps of a stage have to read and to compute. `num_weights` are the layers', head aside."""

    num_weights: int
    num_head_weights: int
    bytes_per_weight: float
    bytes_per_head_weight: int
    bytes_per_token: int

    @property
    def weight_bytes(self) -> int:
        return int(self.num_weights * self.bytes_per_weight) + self.num_head_weights * self.bytes_per_head_weight

    def bytes_of(self, timing: Timing) -> int:
        """Weights once, and the keys and values of the tokens that came before."""
        return self.weight_bytes + timing.num_cached * self.bytes_per_token

    def flops_of(self, timing: Timing) -> int:
        """Of the matrices, the head's for one token a sequence; attention over short contexts is little beside them."""
        return 2 * (self.num_weights * timing.num_tokens + self.num_head_weights * timing.num_sequences)


@dataclass(frozen=True)
class Shares:
    """Of the machine's limits, from 0 to 1 and some: small weights lie in a cache that is faster than memory."""

    memory: float
    arithmetic: float


def shares(timing: Timing, work: StepWork, limits: Limits) -> Shares:
    return Shares(
        work.bytes_of(timing) / timing.seconds / limits.bytes_per_s,
        work.flops_of(timing) / timing.seconds / limits.flops_per_s,
    )


class Limit(StrEnum):
    """What a step waits for."""

    MEMORY = "memory bandwidth"
    ARITHMETIC = "arithmetic"
    NEITHER = "what is neither reading nor arithmetic"


HELP = {
    Limit.MEMORY: "fewer bytes would help: a smaller number format or fewer layers",
    Limit.ARITHMETIC: "more or faster cores would help, or a GPU",
    Limit.NEITHER: "more layers in a stage would help, for each step has costs that do not grow with them",
}


def bottleneck(alone: Shares, together: Shares, num_sequences: int) -> str:
    """One sentence about one sequence, and about many at once."""
    (first, how_near), (second, how_near_too) = _limit(alone), _limit(together)
    if first is second:
        return f"One sequence ({how_near}) and {num_sequences} ({how_near_too}) are limited by {first}: {HELP[first]}."
    return (
        f"One sequence is limited by {first} ({how_near}): {HELP[first]}; "
        f"{num_sequences} by {second} ({how_near_too}): {HELP[second]}."
    )


def _limit(found: Shares) -> tuple[Limit, str]:
    """What limits a step, and how near the nearer limit of the machine is."""
    nearer = max(found.memory, found.arithmetic)
    is_memory = found.memory >= found.arithmetic
    how_near = f"{nearer:.0%} of {'what this machine can read' if is_memory else 'its matrix rate'}"
    if nearer < BOUND:
        return Limit.NEITHER, how_near
    return (Limit.MEMORY if is_memory else Limit.ARITHMETIC), how_near
