"""How many prompt tokens go into a step while sessions decode. Pure Python.

They make the step longer for all who wait for their next token. How much longer depends on the machine, so it is
measured. Prompts run alone while all groups of decoding sessions are away, as many tokens as are done before the next
is back. Where there is no time they go with it, as many as keep its step under twice its time. Where more sessions wait
for their first token than for their next, prompts get their part.
"""

import math

from worker.engine.times import StepTimes

FIRST_TOKENS = 16
MIN_TOKENS = 4
SHARE = 0.9  # of a step's time without prompt tokens
SURE_PART = 0.7  # of the time until the next group is back


def beside_s(times: StepTimes, num_sessions: int, prompts_per_decoding: float) -> float:
    """What prompts may add to a step of so many decoding sessions; `prompts_per_decoding`: of all at the stage."""
    return max(SHARE, prompts_per_decoding) * times.decode_s(num_sessions)


def alone_s(times: StepTimes, free_s: float, num_sessions: int, prompts_per_decoding: float) -> float:
    """What prompts may take of a step of their own, when the next group, of so many sessions, is back in `free_s`.

    Beyond what any step takes; below 0 where there is no time for one.
    """
    part_s = prompts_per_decoding * times.decode_s(num_sessions) if prompts_per_decoding > SHARE else -math.inf
    return max(SURE_PART * free_s - times.decode_s(1), part_s)


def num_tokens_in(times: StepTimes, seconds: float, max_tokens: int) -> int:
    """Prompt tokens that take so long."""
    if times.prompt_token_s is None:
        return min(FIRST_TOKENS, max_tokens)
    return int(min(max(seconds / max(times.prompt_token_s, 1e-9), MIN_TOKENS), max_tokens))
