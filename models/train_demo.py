"""Train the demo's model and tokenizer from nothing, on text that every Python installation carries.

    python models/train_demo.py --minutes 45 --out models/declai-demo

The result is seeded, not bit-reproducible: the learning rate follows the clock, so that any machine ends in time.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from corpus import ASSISTANT, CHAT_TEMPLATE, END, PAD, USER, documents
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCAB_SIZE = 2048
CONTEXT_LENGTH = 1024
SEQUENCE_LENGTH = 384
SEED = 20
IGNORED = -100


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text has an encoding and comes back from it unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT_LENGTH,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Six layers, so that three machines have two each; grouped-query attention; tied embeddings."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.03,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # on a CPU at least as fast as the fused kernel
    return model


def pack(
    documents_ids: list[list[int]], assistant_id: int, rng: random.Random
) -> Iterator[tuple[list[int], list[int]]]:
    """Endless (token ids, labels) of SEQUENCE_LENGTH; a chat's question is no label, only its answer is."""
    ids: list[int] = []
    labels: list[int] = []
    while True:
        rng.shuffle(documents_ids)
        for document in documents_ids:
            answer_at = document.index(assistant_id) + 1 if assistant_id in document else 0
            ids.extend(document)
            labels.extend([IGNORED] * answer_at + document[answer_at:])
            while len(ids) >= SEQUENCE_LENGTH:
                yield ids[:SEQUENCE_LENGTH], labels[:SEQUENCE_LENGTH]
                ids, labels = ids[SEQUENCE_LENGTH:], labels[SEQUENCE_LENGTH:]


def learning_rate(elapsed: float, peak: float) -> float:
    """Warm up over the first 2 % of the time, then a cosine down to 3 % of the peak. `elapsed` in [0, 1]."""
    if elapsed < 0.02:
        return peak * max(elapsed, 1e-4) / 0.02
    return peak * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, elapsed))))


def train(model: LlamaForCausalLM, batches: Iterator[tuple[Tensor, Tensor]], seconds: float, out: Path) -> float:
    """Train for `seconds`; returns the smoothed loss in nats per token."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.97))
    started, smoothed, step = time.monotonic(), 0.0, 0
    columns = (TextColumn("step {task.fields[step]} loss {task.fields[loss]:.3f}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("", total=1.0, step=0, loss=0.0)
        while (elapsed := (time.monotonic() - started) / seconds) < 1:
            ids, labels = next(batches)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(elapsed, peak=2.5e-3)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            smoothed = loss.item() if step == 1 else 0.98 * smoothed + 0.02 * loss.item()
            bar.update(task, completed=elapsed, step=step, loss=smoothed)
            if step % 50 == 0:
                with (out / "training.log").open("a") as log:
                    log.write(f"{step} {time.monotonic() - started:.0f}s {smoothed:.4f}\n")
            if step % 200 == 0:
                torch.save(model.state_dict(), out / "checkpoint.pt")
    return smoothed


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a Hugging Face folder with bf16 weights."""
    model.to(torch.bfloat16).save_pretrained(folder)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=45, help="time to train (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="sequences a step (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/demo-model"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=Path("models/declai-demo"), help="Hugging Face folder to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    options.work.mkdir(parents=True, exist_ok=True)
    texts = documents(SEED)
    tokenizer = train_tokenizer(texts)
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    model = build_model(tokenizer)
    size = {"documents": len(texts), "tokens": sum(map(len, encoded)), "parameters": model.num_parameters()}
    print(json.dumps(size))
    sequences = pack(encoded, tokenizer.convert_tokens_to_ids(ASSISTANT), random.Random(SEED))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            rows = [next(sequences) for _ in range(options.batch_size)]
            yield torch.tensor([ids for ids, _ in rows]), torch.tensor([labels for _, labels in rows])

    loss = train(model, batches(), options.minutes * 60, options.work)
    save(model, tokenizer, options.out)
    print(f"loss {loss:.3f} nats per token; wrote {options.out}")


if __name__ == "__main__":
    main()
