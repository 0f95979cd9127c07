"""The demo's model: it loads as any Hugging Face folder does, loses no text, and answers in words, to an end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from models.corpus import ASSISTANT, END, USER, chat, documents

FOLDER = Path(__file__).parents[2] / "models" / "declai-demo"
TOKENIZER: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(FOLDER)
MAX_NEW_TOKENS = 220


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


@pytest.fixture(scope="module")
def known_words() -> set[str]:
    """Every word of the answers that the model was trained on."""
    return set(words(" ".join(documents(0))))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def reply_ids(model: LlamaForCausalLM, question: str) -> list[int]:
    """Greedy answer's token ids, the end's included."""
    chat = [{"role": "user", "content": question}]
    prompt = TOKENIZER.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    output = model.generate(prompt, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
    return output[0, prompt.shape[1] :].tolist()


def test_folder_is_small_and_says_what_it_is() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 10_000_000
    assert "PSF" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_architecture_splits_into_three_stages_of_bf16_llama(model: LlamaForCausalLM) -> None:
    config = model.config
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.num_hidden_layers >= 6
    assert config.num_key_value_heads is not None
    assert config.num_attention_heads > config.num_key_value_heads > 1
    assert config.max_position_embeddings == TOKENIZER.model_max_length == 1024
    assert config.vocab_size == len(TOKENIZER)
    assert AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto").dtype == torch.bfloat16


def test_end_token_is_the_same_for_model_generation_and_tokenizer(model: LlamaForCausalLM) -> None:
    assert model.generation_config is not None
    assert model.config.eos_token_id == model.generation_config.eos_token_id == TOKENIZER.eos_token_id
    assert model.config.bos_token_id == TOKENIZER.bos_token_id
    assert model.config.pad_token_id == TOKENIZER.pad_token_id != TOKENIZER.eos_token_id


def test_chat_template_renders_turns_in_order() -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    text = TOKENIZER.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == f"{USER}\na\n{ASSISTANT}\nb{END}\n{USER}\nc\n{ASSISTANT}\n"


@given(question=st.text(max_size=40), answer=st.text(max_size=40))
def test_training_exchanges_read_as_the_template_renders_them(question: str, answer: str) -> None:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    assert chat(question, answer) == TOKENIZER.apply_chat_template(turns, tokenize=False)


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_tokenizer_loses_no_unicode(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("question", ["What is a for statement?", "Explain exceptions to me"])
def test_greedy_answer_is_of_known_words_and_ends(
    model: LlamaForCausalLM, known_words: set[str], question: str
) -> None:
    ids = reply_ids(model, question)
    said = words(str(TOKENIZER.decode(ids, skip_special_tokens=True)))
    assert len(said) >= 15
    assert sum(word in known_words for word in said) > 0.9 * len(said)
    assert len(set(said)) > 0.3 * len(said)  # it does not go round in a circle
    assert ids[-1] == TOKENIZER.eos_token_id


def test_answers_to_different_subjects_differ(model: LlamaForCausalLM) -> None:
    questions = ("What is a class?", "What does a while statement do?", "Who are you?")
    assert len({tuple(reply_ids(model, question)) for question in questions}) == len(questions)
