"""One sequence's output at the last stage: draws its tokens and decides when it ends. Pure Python and numpy."""

from tokenizers import Tokenizer

from declai.protocol.options import GenerationOptions
from declai.protocol.sampling import Logits, log_probabilities, most_likely, sample
from declai.protocol.text import OutputText
from declai.worker.engine.sequence import FinishReason, SampledToken, SequenceSpec


class SequenceOutput:
    """The tokens drawn so far. Mutated by each `draw`."""

    def __init__(
        self, sequence_id: bytes, spec: SequenceSpec, options: GenerationOptions, tokenizer: Tokenizer | None
    ) -> None:
        """`options`: those of `spec`, which has some."""
        self._sequence_id = sequence_id
        self._spec = spec
        self._options = options
        self._output_token_ids: list[int] = []
        # Text costs time: it is made where stop strings must be looked for, and nowhere else.
        self._text = OutputText(
            tokenizer if options.stop else None, options.stop, () if options.ignore_eos else spec.eos_token_ids
        )

    def draw(self, logits: Logits) -> SampledToken:
        """The next output token from the logits, float32 [vocab_size], after the last one. Raises NonFiniteLogits."""
        index = len(self._output_token_ids)
        position = self._spec.num_prompt_tokens + index
        constraint = self._spec.constraint
        drawn_from = logits if constraint is None else constraint.masked(logits)
        token_id = sample(
            drawn_from, self._options.sampling, position, self._spec.prompt_token_ids, self._output_token_ids
        )
        self._output_token_ids.append(token_id)
        if constraint is not None:
            constraint.accept(token_id)
        logprob, top_logprobs = self._scores(logits, token_id)
        return SampledToken(
            sequence_id=self._sequence_id,
            index=index,
            position=position,
            token_id=token_id,
            finish_reason=self._finish_reason(token_id),
            logprob=logprob,
            top_logprobs=top_logprobs,
        )

    def _scores(self, logits: Logits, token_id: int) -> tuple[float | None, tuple[tuple[int, float], ...]]:
        """Log probabilities of the token and of the most likely ones, as far as they are wanted."""
        if not self._options.logprobs:
            return None, ()
        likely = most_likely(logits, self._options.top_logprobs)
        own, *values = log_probabilities(logits, [token_id, *likely])
        return own, tuple(zip(likely, values, strict=True))

    def _finish_reason(self, token_id: int) -> FinishReason | None:
        self._text.push(token_id)
        if self._text.ended:
            return "stop"
        if self._spec.constraint is not None and self._spec.constraint.ended is not None:
            return self._spec.constraint.ended
        if len(self._output_token_ids) >= self._spec.max_tokens:
            return "length"
        return None
