"""What steps take on this machine, learned from those it ran. Pure Python.

A processor takes almost as long for each row as for the last one, a GPU reads its weights for one as for a hundred.
"""

import bisect
from dataclasses import dataclass

_STEPS_KEPT = 10
_PROMPT_TOKENS_KEPT = 1000


class StepTimes:
    """Seconds of a step without prompt tokens, by the number of its decoding sequences; and of each prompt token."""

    def __init__(self) -> None:
        self._decode: dict[int, Mean] = {}
        self._prompt_token = Mean(_PROMPT_TOKENS_KEPT)
        self._tried: list[int] = []
        self._tried_s: list[float] = []

    def note(self, num_decoding: int, num_prompt_tokens: int, seconds: float) -> None:
        """A step took so long."""
        if not num_prompt_tokens:
            self._decode.setdefault(num_decoding, Mean(_STEPS_KEPT)).note(seconds)
            self._tried = sorted(self._decode)
            self._tried_s = [self._decode[number].value for number in self._tried]
            for place in range(len(self._tried) - 2, -1, -1):
                # Fewer sequences take no longer than more: a time above was one of few, or of a machine that was busy.
                self._tried_s[place] = min(self._tried_s[place : place + 2])
        elif self._tried:
            extra_s = max(0.0, seconds - self.decode_s(max(1, num_decoding)))
            self._prompt_token.note(extra_s / num_prompt_tokens, num_prompt_tokens)

    @property
    def prompt_token_s(self) -> float | None:
        """None before it was measured."""
        return self._prompt_token.value if self._prompt_token.weight else None

    @property
    def shortest_s(self) -> float:
        """Of the steps that were tried: what any takes, about. 0 before any was."""
        return self._tried_s[0] if self._tried_s else 0.0

    def decode_s(self, num_sequences: int) -> float:
        """Between numbers of sequences that were tried, on the line between them. Beyond these the best that can be, so
        that it is tried: fewer take their part of it, and more take no longer. 0 before anything was."""
        if not self._tried:
            return 0.0
        place = bisect.bisect_left(self._tried, num_sequences)
        if place == len(self._tried):
            return self._tried_s[-1]
        above = self._tried[place]
        below, below_s = (self._tried[place - 1], self._tried_s[place - 1]) if place else (0, 0.0)
        return below_s + (num_sequences - below) / (above - below) * (self._tried_s[place] - below_s)


@dataclass
class Mean:
    """Of values in which the first are soon outweighed: they are of cold caches, or of kernels being made."""

    weight_kept: float
    value: float = 0.0
    weight: float = 0.0

    def note(self, value: float, weight: float = 1.0) -> None:
        self.weight = min(self.weight, self.weight_kept) + weight
        self.value += (value - self.value) * weight / self.weight
