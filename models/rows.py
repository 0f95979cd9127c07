"""Training rows: token ids of whole documents, so that each row begins where a document begins, as prompts do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from models.corpus import docstring_entries, language_entries, plain_texts
from models.questions import ask, small_talk

IGNORED = -100
SHORT_ROW, LONG_ROW = 256, 1024
LONG_SHARE = 0.125
QUESTIONS_PER_TOPIC = 5
SMALL_TALKS = 150
OPEN_ROWS = 48


@dataclass
class Row:
    """Token ids and, at the same places, labels: the id itself where it is learned, IGNORED where it is given."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, other: Row) -> None:
        self.ids += other.ids
        self.labels += other.labels


class Corpus:
    """Everything the model reads. Iterating over `epoch` twice asks for the same entries in other words."""

    def __init__(self, end: str) -> None:
        self._topics, self._docstrings = language_entries(), docstring_entries()
        self._plain = [text + end for text in plain_texts()]

    def epoch(self, rng: random.Random) -> tuple[list[tuple[str, str]], list[str]]:
        """((question, answer) of every exchange, plain texts), in any order."""
        exchanges = [(ask(entry, rng), entry.answer) for entry in self._topics for _ in range(QUESTIONS_PER_TOPIC)]
        exchanges += [(ask(entry, rng), entry.answer) for entry in self._docstrings]
        exchanges += [small_talk(rng) for _ in range(SMALL_TALKS)]
        return exchanges, self._plain


def render(tokenizer: PreTrainedTokenizerFast, question: str, answer: str) -> tuple[str, str]:
    """(prompt, completion) of an exchange, as the tokenizer's own chat template writes them."""
    asked = [{"role": "user", "content": question}]
    prompt = str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
    whole = str(tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": answer}], tokenize=False))
    return prompt, whole.removeprefix(prompt)


def batches(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, tokens: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, labels), both (rows, row length) of int64, with about `tokens` places in each."""
    pad = int(tokenizer.convert_tokens_to_ids(str(tokenizer.pad_token)))  # type: ignore[arg-type]
    while True:
        documents = _encode(corpus, tokenizer, rng)
        rng.shuffle(documents)
        cut = int(len(documents) * LONG_SHARE)
        epoch = []
        for part, length in ((documents[:cut], LONG_ROW), (documents[cut:], SHORT_ROW)):
            rows = _pack(part, length)
            rng.shuffle(rows)
            size = max(1, tokens // length)
            epoch += [(rows[at : at + size], length) for at in range(0, len(rows), size)]
        rng.shuffle(epoch)
        for rows, length in epoch:
            ids = torch.tensor([row.ids + [pad] * (length - len(row.ids)) for row in rows])
            labels = torch.tensor([row.labels + [IGNORED] * (length - len(row.labels)) for row in rows])
            yield ids, labels


def _encode(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> list[Row]:
    exchanges, plain = corpus.epoch(rng)
    pairs = [render(tokenizer, question, answer) for question, answer in exchanges]
    prompts = tokenizer([prompt for prompt, _ in pairs], add_special_tokens=False)["input_ids"]
    completions = tokenizer([completion for _, completion in pairs], add_special_tokens=False)["input_ids"]
    documents = [
        Row([*prompt, *completion], [IGNORED] * len(prompt) + completion)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    for ids in tokenizer(plain, add_special_tokens=False)["input_ids"]:
        documents += [Row(ids[at : at + SHORT_ROW], ids[at : at + SHORT_ROW]) for at in range(0, len(ids), SHORT_ROW)]
    return documents


def _pack(documents: list[Row], length: int) -> list[Row]:
    """First fit over OPEN_ROWS rows; no document is cut, unless it is longer than a row."""
    full: list[Row] = []
    rows: list[Row] = []
    for document in documents:
        piece = Row(document.ids[:length], document.labels[:length])
        fitting = next((row for row in rows if len(row.ids) + len(piece.ids) <= length), None)
        if fitting is None:
            if len(rows) == OPEN_ROWS:
                rows.sort(key=lambda row: len(row.ids))
                full.append(rows.pop())
            fitting = Row()
            rows.append(fitting)
        fitting.add(piece)
    return full + rows
