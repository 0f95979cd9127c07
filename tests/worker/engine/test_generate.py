"""What comes out of a chain of engines is what `generate` makes of the whole model."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from declai.protocol.options import Sampling
from declai.worker.engine import EngineLimits
from tests.support.pipelines import GREEDY, Pipeline, generated, ids, prompt_of, spec
from tests.support.zoo import ARCHITECTURES, NUM_LAYERS, VOCAB_SIZE, Zoo

SAMPLED = Sampling(temperature=0.8, top_k=40, top_p=0.95, seed=7)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_output_of_three_stages_is_that_of_generate(zoo: Zoo, name: str) -> None:
    pipeline = Pipeline(zoo, name)
    for num_tokens in (1, 17, 130, 500):
        prompt = prompt_of(num_tokens, seed=num_tokens)
        tokens = pipeline.generate(prompt, spec(prompt, 12))
        assert ids(tokens) == generated(zoo, name, prompt, 12)
        assert [token.index for token in tokens] == list(range(12))
        assert [token.position for token in tokens] == list(range(num_tokens, num_tokens + 12))
        assert [token.finish_reason for token in tokens] == [None] * 11 + ["length"]


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "bloom", "mixtral", "deepseek-v3"])
@pytest.mark.parametrize("boundaries", [(0, NUM_LAYERS), (0, 1, 2, 3, 4, 5), (0, 4, 5)])
def test_where_the_model_is_cut_makes_no_difference(zoo: Zoo, name: str, boundaries: tuple[int, ...]) -> None:
    prompt = prompt_of(40)
    assert ids(Pipeline(zoo, name, boundaries).generate(prompt, spec(prompt, 10))) == generated(zoo, name, prompt, 10)


@pytest.mark.parametrize("name", ["llama-tied", "gemma2", "mistral", "falcon-alibi", "gpt-oss", "opt"])
def test_prompts_in_chunks(zoo: Zoo, name: str) -> None:
    limits = EngineLimits(4, 640, 1 << 24, prefill_chunk_tokens=64)
    prompt = prompt_of(500)
    assert ids(Pipeline(zoo, name, limits=limits).generate(prompt, spec(prompt, 10))) == generated(
        zoo, name, prompt, 10
    )


def test_a_prompt_may_come_in_pieces(zoo: Zoo) -> None:
    prompt = prompt_of(50)
    pipeline = Pipeline(zoo, "qwen3")
    pipeline.start(b"s", prompt[:10], spec(prompt, 8))
    for begin, end in ((10, 11), (11, 49), (49, 50)):
        pipeline.step()
        pipeline.engines[0].feed(b"s", begin, prompt[begin:end])
    pipeline.run()
    assert ids(pipeline.tokens[b"s"]) == generated(zoo, "qwen3", prompt, 8)


def test_interleaved_sequences_are_as_if_alone(zoo: Zoo) -> None:
    limits = EngineLimits(4, 640, 1 << 24, prefill_chunk_tokens=32)
    pipeline = Pipeline(zoo, "gemma2", limits=limits)
    prompts = {bytes([number]): prompt_of(length, seed=number) for number, length in enumerate((200, 3, 77, 40))}
    for number, (sequence_id, prompt) in enumerate(prompts.items()):
        pipeline.start(sequence_id, prompt, spec(prompt, 10 + number))
        pipeline.step()
    pipeline.run()
    for number, (sequence_id, prompt) in enumerate(prompts.items()):
        assert ids(pipeline.tokens[sequence_id]) == generated(zoo, "gemma2", prompt, 10 + number)
    for engine in pipeline.engines:
        assert engine.num_sequences == 0
        assert engine.used_cache_bytes == 0
        engine.check_integrity()


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt-neox"])
def test_a_seed_gives_one_text_in_one_stage_or_three(zoo: Zoo, name: str) -> None:
    prompt = prompt_of(30)
    one, three = Pipeline(zoo, name, (0, NUM_LAYERS)), Pipeline(zoo, name)
    texts = {
        seed: ids(one.generate(prompt, spec(prompt, 40, Sampling(temperature=1.0, seed=seed)))) for seed in range(4)
    }
    for seed, text in texts.items():
        assert ids(three.generate(prompt, spec(prompt, 40, Sampling(temperature=1.0, seed=seed)))) == text
    assert len(set(map(tuple, texts.values()))) == len(texts)


def test_other_sequences_do_not_change_what_is_sampled(zoo: Zoo) -> None:
    prompt = prompt_of(30)
    alone = ids(Pipeline(zoo, "llama").generate(prompt, spec(prompt, 20, SAMPLED)))
    pipeline = Pipeline(zoo, "llama")
    pipeline.start(b"other", prompt_of(100), spec(prompt_of(100), 25, Sampling(seed=1)))
    pipeline.start(b"same", prompt, spec(prompt, 20, SAMPLED))
    pipeline.run()
    assert ids(pipeline.tokens[b"same"]) == alone


def test_a_repetition_penalty_reaches_over_prompt_and_output(zoo: Zoo) -> None:
    prompt = prompt_of(20)
    sampling = Sampling(temperature=0, repetition_penalty=1.3)
    tokens = Pipeline(zoo, "llama").generate(prompt, spec(prompt, 20, sampling, prompt_token_ids=tuple(prompt)))
    assert ids(tokens) == generated(zoo, "llama", prompt, 20, repetition_penalty=1.3)


def test_penalties_over_the_output_alone(zoo: Zoo) -> None:
    class Penalties(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            counts = torch.bincount(input_ids[0, 20:], minlength=scores.shape[-1])
            return scores - 0.5 * (counts > 0) - 0.7 * counts

    prompt = prompt_of(20)
    sampling = Sampling(temperature=0, presence_penalty=0.5, frequency_penalty=0.7)
    tokens = Pipeline(zoo, "llama").generate(prompt, spec(prompt, 20, sampling))
    processors = LogitsProcessorList([Penalties()])
    assert ids(tokens) == generated(zoo, "llama", prompt, 20, logits_processor=processors)


def test_an_end_token_ends_the_output_unless_ignored(zoo: Zoo) -> None:
    prompt = prompt_of(20)
    pipeline = Pipeline(zoo, "llama")
    full = ids(pipeline.generate(prompt, spec(prompt, 12)))
    end = full[5]
    tokens = pipeline.generate(prompt, spec(prompt, 12, eos_token_ids=(end, 96)))
    assert ids(tokens) == full[: full.index(end) + 1]
    assert tokens[-1].finish_reason == "stop"
    assert ids(pipeline.generate(prompt, spec(prompt, 12, eos_token_ids=(end,), ignore_eos=True))) == full


def test_log_probabilities_are_the_models_own(zoo: Zoo) -> None:
    prompt = prompt_of(20)
    tokens = Pipeline(zoo, "llama").generate(prompt, spec(prompt, 5, SAMPLED, logprobs=True))
    whole = torch.tensor([prompt + ids(tokens)])
    with torch.inference_mode():
        logprobs = zoo.whole("llama")(whole).logits[0].log_softmax(-1)
    for token in tokens:
        assert token.logprob == pytest.approx(logprobs[token.position - 1, token.token_id].item(), abs=1e-4)
    assert Pipeline(zoo, "llama").generate(prompt, spec(prompt, 1))[0].logprob is None


def test_the_likeliest_tokens_are_the_models_own(zoo: Zoo) -> None:
    prompt = prompt_of(20)
    sampling = Sampling(temperature=1.0, seed=3, top_k=2, logit_bias={5: 50.0})
    tokens = Pipeline(zoo, "llama").generate(prompt, spec(prompt, 5, sampling, logprobs=True, top_logprobs=20))
    with torch.inference_mode():
        scores = zoo.whole("llama")(torch.tensor([prompt + ids(tokens)])).logits[0].log_softmax(-1)
    for token in tokens:
        values, found = scores[token.position - 1].topk(20)
        assert [token_id for token_id, _ in token.top_logprobs] == found.tolist()
        assert [value for _, value in token.top_logprobs] == pytest.approx(values.tolist(), abs=1e-4)


def word_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({f"<{number}>": number for number in range(VOCAB_SIZE)}, unk_token="<0>"))
    tokenizer.decoder = Fuse()
    return tokenizer


def test_a_stop_string_ends_the_output_at_its_last_token(zoo: Zoo) -> None:
    prompt = prompt_of(20)
    pipeline = Pipeline(zoo, "llama", tokenizer=word_tokenizer())
    full = ids(pipeline.generate(prompt, spec(prompt, 12)))
    across_two_tokens = f"{full[3]}><{full[4]}"
    tokens = pipeline.generate(prompt, spec(prompt, 12, stop=("never", across_two_tokens)))
    assert ids(tokens) == full[:5]
    assert tokens[-1].finish_reason == "stop"


def test_greedy_is_the_default_of_no_one_but_temperature_zero(zoo: Zoo) -> None:
    prompt = prompt_of(20)
    assert ids(Pipeline(zoo, "llama").generate(prompt, spec(prompt, 12, Sampling(seed=3)))) != ids(
        Pipeline(zoo, "llama").generate(prompt, spec(prompt, 12, GREEDY))
    )
