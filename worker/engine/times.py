"""What steps take on this machine, learned from those it ran. Pure Python.

A processor takes almost as long for each row as for the last one, a GPU reads its weights for one as for a hundred.
"""

import bisect

SMOOTHING = 0.1


class StepTimes:
    """Seconds of a step without prompt tokens, by the number of its decoding sessions; and of each prompt token."""

    def __init__(self) -> None:
        self._decode_s: dict[int, float] = {}
        self.prompt_token_s: float | None = None

    def note(self, num_decoding: int, num_prompt_tokens: int, seconds: float) -> None:
        """A step took so long."""
        if not num_prompt_tokens:
            self._decode_s[num_decoding] = _smooth(self._decode_s.get(num_decoding), seconds)
        elif self._decode_s:
            extra_s = max(0.0, seconds - self.decode_s(max(1, num_decoding)))
            self.prompt_token_s = _smooth(self.prompt_token_s, extra_s / num_prompt_tokens)

    def decode_s(self, num_sessions: int) -> float:
        """Between numbers of sessions that were tried, on the line between them. Beyond these the best that can be, so
        that it is tried: fewer take their part of it, and more take no longer. 0 before anything was."""
        tried = sorted(self._decode_s)
        if not tried:
            return 0.0
        place = bisect.bisect_left(tried, num_sessions)
        if place == len(tried):
            return self._decode_s[tried[-1]]
        above = tried[place]
        below = tried[place - 1] if place else 0
        below_s = self._decode_s[below] if place else 0.0
        return below_s + (num_sessions - below) / (above - below) * (self._decode_s[above] - below_s)


def _smooth(known: float | None, value: float) -> float:
    return value if known is None else known + (value - known) * SMOOTHING
