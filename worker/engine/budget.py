"""How many prompt tokens go beside decoding sessions into one step. Pure Python.

They make the step longer for all who wait for their next token. How much longer depends on the machine, so it is
measured: prompts get what keeps a step under twice its time without them, and more where more sessions wait for their
first token than for their next.
"""

from worker.engine.times import StepTimes

FIRST_TOKENS = 16
MIN_TOKENS = 4
SHARE = 0.7  # of a step's time without prompt tokens


def mixed_seconds(times: StepTimes, num_sessions: int, prompts_per_decoding: float) -> float:
    """What prompts may add to a step of so many decoding sessions; `prompts_per_decoding`: of all at the stage."""
    return max(SHARE, prompts_per_decoding) * times.decode_s(num_sessions)


def mixed_tokens(times: StepTimes, seconds: float, max_tokens: int) -> int:
    """Prompt tokens that take so long."""
    if times.prompt_token_s is None:
        return min(FIRST_TOKENS, max_tokens)
    return min(max(int(seconds / max(times.prompt_token_s, 1e-9)), MIN_TOKENS), max_tokens)
