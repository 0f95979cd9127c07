"""How many prompt tokens go into a step. Pure Python.

They come in pieces: small ones, so that a prompt's stages work at the same time, yet so large that what every step
takes is a small part.

While sequences decode, prompts make the step longer for all who wait for their next token. How much longer depends on
the machine, so it is measured. Prompts run alone while all groups of decoding sequences are away, as many tokens as are
done before the next is back. Where there is no time they go with it, as many as keep its step under twice its time.

Sequences that come together should decode together, for a step of many takes little longer than one of few. So where
more wait for their first token than for their next, prompts rush: whole pieces, until none waits. They do so only if
that is soon over, and by their part of all sequences otherwise.
"""

import math

from declai.worker.engine.turns.times import StepTimes

FIRST_TOKENS = 16
MIN_TOKENS = 4
SHARE = 0.9  # of a step's time without prompt tokens
SURE_PART = 0.7  # of the time until the next group is back
PIECE_STEPS = 6  # the time of a piece, by that of the shortest step
MORE = 0.5  # of a piece, rather than a step for the rest of a prompt
MOST_RUSH_S = 0.5


class Rush:
    """Whether prompts go first."""

    def __init__(self) -> None:
        self._is_on = False

    def is_on(self, times: StepTimes, num_prompts: int, num_prompt_tokens: int, num_decoding: int) -> bool:
        """With so many sequences that wait for their first token, so many tokens of their prompts, and others."""
        self._is_on = num_prompts > num_decoding or (self._is_on and num_prompts > 0)
        return self._is_on and num_prompt_tokens * (times.prompt_token_s or 0.0) <= MOST_RUSH_S


def piece(times: StepTimes, max_tokens: int) -> tuple[int, int]:
    """Prompt tokens of a step where they go first; and how many more to come to a prompt's end."""
    if times.prompt_token_s is None:
        return max_tokens, 0
    num_tokens = num_tokens_in(times, PIECE_STEPS * times.shortest_s, max_tokens)
    return num_tokens, min(int(MORE * num_tokens), max_tokens - num_tokens)


def beside_s(times: StepTimes, num_sequences: int, prompts_per_decoding: float) -> float:
    """What prompts may add to a step of so many decoding sequences; `prompts_per_decoding`: of all at the stage."""
    return max(SHARE, prompts_per_decoding) * times.decode_s(num_sequences)


def alone_s(times: StepTimes, free_s: float, num_sequences: int, prompts_per_decoding: float) -> float:
    """What prompts may take of a step of their own, when the next group, of so many sequences, is back in `free_s`.

    Beyond what any step takes; below 0 where there is no time for one.
    """
    part_s = prompts_per_decoding * times.decode_s(num_sequences) if prompts_per_decoding > SHARE else -math.inf
    return max(SURE_PART * free_s - times.decode_s(1), part_s)


def num_tokens_in(times: StepTimes, seconds: float, max_tokens: int) -> int:
    """Prompt tokens that take so long."""
    if times.prompt_token_s is None:
        return min(FIRST_TOKENS, max_tokens)
    return int(min(max(seconds / max(times.prompt_token_s, 1e-9), MIN_TOKENS), max_tokens))
