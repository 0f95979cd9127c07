"""What a stage can never run, refused before anything is reserved for it."""

from declai.worker.engine.errors import InvalidSequence
from declai.worker.engine.sequence import SequenceSpec
from declai.worker.model.stage import Stage


def check_spec(spec: SequenceSpec, stage: Stage, max_context_tokens: int, *, has_tokenizer: bool) -> None:
    """Raises InvalidSequence."""
    if spec.num_prompt_tokens < 1 or spec.max_tokens < 1:
        raise InvalidSequence(f"{spec.num_prompt_tokens} prompt and {spec.max_tokens} output tokens; both must be >= 1")
    if spec.num_prompt_tokens + spec.max_tokens > max_context_tokens:
        raise InvalidSequence(
            f"{spec.num_prompt_tokens} prompt and {spec.max_tokens} output tokens; "
            f"the context holds {max_context_tokens}"
        )
    if stage.is_last != (spec.options is not None):
        raise InvalidSequence("the last stage needs generation options, and no other takes them")
    if spec.options is None:
        return
    sampling = spec.options.sampling
    vocab_size = stage.architecture.vocab_size
    token_ids = (*spec.prompt_token_ids, *sampling.logit_bias)
    if token_ids and not 0 <= min(token_ids) <= max(token_ids) < vocab_size:
        raise InvalidSequence(f"a prompt token or logit bias is outside the vocabulary of {vocab_size}")
    if sampling.needs_prompt and len(spec.prompt_token_ids) != spec.num_prompt_tokens:
        raise InvalidSequence("a repetition penalty needs the token ids of the whole prompt at the last stage")
    if spec.options.stop and not has_tokenizer:
        raise InvalidSequence("stop strings need the model's tokenizer, which this engine was not given")
