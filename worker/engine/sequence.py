"""What goes into an engine and what comes out: one small frozen dataclass each."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from declai.protocol.grammar import Constraint
from declai.protocol.options import GenerationOptions
from declai.worker.engine.errors import EngineError
from declai.worker.limits import MIXED_PREFILL_TOKENS, PREFILL_CHUNK_TOKENS

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class EngineLimits:
    """The bounds of one engine.

    Attributes:
        max_sequences: sequences open at once.
        max_context_tokens: prompt and output of one sequence together.
        max_cache_bytes: what all open sequences may take for keys, values and input not yet computed.
        prefill_chunk_tokens: the most prompt tokens in one step; few, so that stages overlap and nobody waits long.
        mixed_prefill_tokens: the same for steps in which other sequences wait for their next token; as few of them as
            keep such a step under twice its time without.
        prefix_reuse: whether a sequence takes over what others computed of the same input (SequenceSpec.cache_salt).
        cuda_graphs: whether decode steps are recorded, where the device is CUDA.
    """

    max_sequences: int
    max_context_tokens: int
    max_cache_bytes: int
    prefill_chunk_tokens: int = PREFILL_CHUNK_TOKENS
    mixed_prefill_tokens: int = MIXED_PREFILL_TOKENS
    prefix_reuse: bool = True
    cuda_graphs: bool = True


@dataclass(frozen=True)
class SequenceSpec:
    """One request as one stage sees it. From `options` to `constraint`, fields matter at the last stage alone.

    Attributes:
        options: required at the last stage, absent elsewhere. Stop strings need the engine's tokenizer.
        eos_token_ids: end the output, unless the options ignore them.
        prompt_token_ids: required when `options.sampling.needs_prompt`, for the last stage sees hidden states only.
        constraint: what the output is held to: the options' grammar, compiled. It belongs to the sequence from now on.
        cache_salt: sequences of the same salt share what they compute of the same input; with none, a sequence shares
            nothing. It names who pays, so that nobody can find out by the time it takes what another one has asked.
        weight: the sequence's share of a busy stage, relative to the others'.
        num_stages: that the sequence goes through. The first one lets as many groups of sequences follow each other, so
            that every stage has one to compute.
    """

    num_prompt_tokens: int
    max_tokens: int
    options: GenerationOptions | None = None
    eos_token_ids: tuple[int, ...] = ()
    prompt_token_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None
    cache_salt: bytes = b""
    weight: float = 1.0
    num_stages: int = 1

    @property
    def max_positions(self) -> int:
        """The most positions that are ever computed: the last token sampled is fed to no one."""
        return self.num_prompt_tokens + self.max_tokens - 1


@dataclass(frozen=True, eq=False)
class HiddenRows:
    """Hidden states for the next stage: uint8 [num_tokens, bytes per row], contiguous, never written to again."""

    sequence_id: bytes
    first_position: int
    num_tokens: int
    rows: NDArray[np.uint8]


@dataclass(frozen=True)
class SampledToken:
    """Output token number `index` (from 0), which takes `position` in the sequence. With a finish reason, the last.

    `top_logprobs`: (token id, log probability) of the most likely tokens at its place, falling.
    """

    sequence_id: bytes
    index: int
    position: int
    token_id: int
    finish_reason: FinishReason | None
    logprob: float | None
    top_logprobs: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class SequenceFailed:
    """The sequence is closed; the others go on."""

    sequence_id: bytes
    error: EngineError


StageOutput: TypeAlias = HiddenRows | SampledToken | SequenceFailed
