"""What an engine has done since it was made: counts for metrics, kept by the engine's thread, read by any."""

from bisect import bisect_left
from dataclasses import dataclass, field

STEP_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Distribution:
    """How many values were at most each bound, and their sum, as a Prometheus histogram wants them."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """(bound, number of values up to it), ending with all."""
        total, found = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self._counts, strict=True):
            total += count
            found.append((bound, total))
        return found


@dataclass
class EngineStats:
    """`step_tokens`: of prompts and outputs together, in one forward.

    Of the prompt tokens of sessions that may share, `num_reusable_tokens`, the cache had `num_reused_tokens`; the rest
    is computed.
    """

    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_reusable_tokens: int = 0
    num_reused_tokens: int = 0
    step_tokens: Distribution = field(default_factory=lambda: Distribution(STEP_TOKENS))
    step_sessions: Distribution = field(default_factory=lambda: Distribution(STEP_TOKENS))
    step_seconds: Distribution = field(default_factory=lambda: Distribution(STEP_SECONDS))

    def count_step(self, num_prompt_tokens: int, num_output_tokens: int, num_sessions: int, seconds: float) -> None:
        self.num_prompt_tokens += num_prompt_tokens
        self.num_output_tokens += num_output_tokens
        self.step_tokens.observe(num_prompt_tokens + num_output_tokens)
        self.step_sessions.observe(num_sessions)
        self.step_seconds.observe(seconds)
