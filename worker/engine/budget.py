"""How many prompt tokens go beside decoding sessions into one step. Pure Python.

They make the step longer for all who wait for their next token. How much longer depends on the machine: a processor
takes almost as long for each row as for the last one, a GPU has room for hundreds while it reads the weights. So it is
measured, and prompts get what keeps a step under twice its time without them.
"""

FIRST_TOKENS = 16
MIN_TOKENS = 4
SHARE = 0.8  # of a step's time without prompt tokens
SMOOTHING = 0.1


class MixedBudget:
    """Learns from the times of steps."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._decode_s: float | None = None
        self._prompt_token_s: float | None = None

    @property
    def num_tokens(self) -> int:
        """Prompt tokens for the next step that has decoding sessions, too."""
        if self._decode_s is None or self._prompt_token_s is None:
            return min(FIRST_TOKENS, self._max_tokens)
        affordable = SHARE * self._decode_s / max(self._prompt_token_s, 1e-9)
        return min(max(int(affordable), MIN_TOKENS), self._max_tokens)

    def note(self, num_decode_tokens: int, num_prompt_tokens: int, seconds: float) -> None:
        """A step took so long."""
        if not num_prompt_tokens:
            self._decode_s = _smooth(self._decode_s, seconds)
        elif num_decode_tokens and self._decode_s is not None:
            extra_s = max(0.0, seconds - self._decode_s)
            self._prompt_token_s = _smooth(self._prompt_token_s, extra_s / num_prompt_tokens)


def _smooth(known: float | None, value: float) -> float:
    return value if known is None else known + (value - known) * SMOOTHING
