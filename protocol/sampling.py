"""The next token as a pure function of logits, request seed and position. Torch-free.

A token is drawn by Gumbel-argmax in its exponential form: with weights w = exp((logit - max) / temperature) and
independent standard exponential E, argmax(w / E) is distributed as softmax (Gumbel 1954; Efraimidis and Spirakis 2006).
E comes from a counter-based generator (Philox 4x64, Salmon et al. 2011) keyed by the seed and counted by position and
token id, so any process, in any batch, on any rerun draws the same token, and a swapped token can be shown.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from declai.protocol.errors import NonFiniteLogits
from declai.protocol.options import Sampling

Logits = NDArray[np.float32]
TokenIds = Sequence[int] | NDArray[np.integer]


def sample(
    logits: Logits,
    sampling: Sampling,
    position: int,
    prompt_token_ids: TokenIds = (),
    output_token_ids: TokenIds = (),
) -> int:
    """The token id drawn for `position` (the place in the sequence, from 0, that the token will take).

    `logits` is float32 [vocab_size] and stays as it is. Token ids must be below the vocabulary's size.

    Raises:
        NonFiniteLogits: a logit is NaN or +infinity (-infinity, "never", is fine unless all are).
    """
    logits = _adjusted(logits, sampling, prompt_token_ids, output_token_ids)
    highest = logits.max()
    if not np.isfinite(highest):
        raise NonFiniteLogits(f"the highest logit at position {position} is {highest}; the model's weights are broken")
    if sampling.temperature == 0:
        return int(logits.argmax())
    with np.errstate(over="ignore", under="ignore"):
        weights = np.exp((logits - highest) / np.float32(sampling.temperature))
    waiting_times = _standard_exponentials(sampling.seed, position, len(logits))
    candidates = _candidates(logits, weights, sampling)
    if candidates is not None:
        weights, waiting_times = weights[candidates], waiting_times[candidates]
    rates = weights / waiting_times
    drawn = int(rates.argmax())
    if rates[drawn] == 0:  # every token that may come has an endless wait
        return int(logits.argmax())
    return drawn if candidates is None else int(candidates[drawn])


def log_probabilities(logits: Logits, token_ids: TokenIds) -> list[float]:
    """Natural logarithms of the model's own probabilities of tokens, before sampling changes them; at most 0."""
    highest = float(logits.max())
    total = highest + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))
    return [min(float(logits[token_id]) - total, 0.0) for token_id in token_ids]


def most_likely(logits: Logits, count: int) -> list[int]:
    """Ids of the `count` highest logits, falling; of equal ones the lower ids. Tokens at -infinity are left out."""
    if count < 1:
        return []
    lowest = np.partition(logits, -count)[-count] if count < len(logits) else -np.inf
    pool = np.flatnonzero((logits >= lowest) & (logits > -np.inf))
    found: list[int] = pool[np.argsort(-logits[pool], kind="stable")][:count].tolist()
    return found


def _adjusted(logits: Logits, sampling: Sampling, prompt_token_ids: TokenIds, output_token_ids: TokenIds) -> Logits:
    """Logits with bias and penalties; a copy when anything changes."""
    penalises_output = sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
    if not (sampling.logit_bias or sampling.needs_prompt or penalises_output):
        return logits
    logits = logits.copy()
    output = np.asarray(output_token_ids, dtype=np.int64)
    if sampling.logit_bias:
        biased = np.fromiter(sampling.logit_bias.keys(), dtype=np.int64)
        logits[biased] += np.fromiter(sampling.logit_bias.values(), dtype=np.float32)
    if sampling.needs_prompt:
        seen = np.unique(np.concatenate((np.asarray(prompt_token_ids, dtype=np.int64), output)))
        penalty = np.float32(sampling.repetition_penalty)
        logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    if penalises_output:
        made, counts = np.unique(output, return_counts=True)
        penalties = sampling.presence_penalty + sampling.frequency_penalty * counts
        logits[made] -= penalties.astype(np.float32)
    return logits


def _candidates(logits: Logits, weights: Logits, sampling: Sampling) -> NDArray[np.intp] | None:
    """Ids of the tokens that may be drawn, ascending, or None for all."""
    kept: NDArray[np.intp] | None = None
    if 0 < sampling.top_k < len(logits):
        lowest = np.partition(logits, -sampling.top_k)[-sampling.top_k]
        kept = np.flatnonzero(logits >= lowest)
    if sampling.top_p < 1:
        pool = weights if kept is None else weights[kept]
        inside = np.flatnonzero(pool >= _nucleus_edge(pool, sampling.top_p))
        kept = inside if kept is None else kept[inside]
    if sampling.min_p > 0:
        # The most likely token has weight 1, so weights are already relative to it.
        likely = weights >= np.float32(sampling.min_p)
        kept = np.flatnonzero(likely) if kept is None else kept[likely[kept]]
    return kept


def _nucleus_edge(weights: Logits, top_p: float) -> np.float32:
    """The lowest weight in the smallest set of highest weights that holds the share `top_p` of all."""
    total = weights.sum(dtype=np.float64)
    # Weights at or below this hold at most 1 - top_p together, so the set is among the others: less to sort.
    pool = weights[weights > (1 - top_p) * total / len(weights)]
    descending = np.sort(pool)[::-1]
    reached = np.searchsorted(np.cumsum(descending, dtype=np.float64), top_p * total)
    edge: np.float32 = descending[min(int(reached), len(descending) - 1)]
    return edge


def _standard_exponentials(seed: int, position: int, size: int) -> Logits:
    """One standard exponential per token id, float32: -log(1 - u) with u = (r + 1/2) / 2**32.

    r is the 32-bit word number `token id` of the stream that Philox 4x64 gives from counter (0, 0, position, 0) and key
    `seed`, each 64-bit output taken low word first. Small u, which decide the draw, keep their full precision.
    """
    stream = np.random.Philox(key=seed, counter=[0, 0, position, 0]).random_raw((size + 1) // 2)
    words = stream.astype("<u8", copy=False).view("<u4")[:size]
    uniform = (words.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    with np.errstate(divide="ignore"):  # u rounds to 1 once in 2**25 draws: an endless wait, never chosen
        waiting_times: Logits = -np.log1p(-uniform)
    return waiting_times
