"""Train the demo's model and tokenizer from nothing, on text that every Python installation carries.

    python -m models.train_demo --minutes 60

Seeded, but not reproducible bit by bit: the learning rate follows the clock, so that any machine ends in time.
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
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from models.rows import Corpus, batches

VOCAB_SIZE = 2048
CONTEXT_LENGTH = 1024
SEED = 20
USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>\n{{ message['content'] }}<|end|>\n"
    "{% else %}<|user|>\n{{ message['content'] }}\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PEAK_LEARNING_RATE = 2.5e-3
CHECKPOINT_EVERY_S = 300


def train_tokenizer(corpus: Corpus) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text has an encoding and comes back from it unchanged."""
    exchanges, plain = corpus.epoch(random.Random(SEED))
    texts = [text for exchange in exchanges for text in exchange] + plain
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
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=END,  # as GPT-2 does: one token stands between documents; it is not put before prompts
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
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # in bf16 on one CPU thread it is a third faster than the fused kernel
    return model


def learning_rate(elapsed: float) -> float:
    """Warm up over the first 2 % of the time, then a cosine down to 2 % of the peak. `elapsed` in [0, 1]."""
    if elapsed < 0.02:
        return PEAK_LEARNING_RATE * max(elapsed, 1e-4) / 0.02
    return PEAK_LEARNING_RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, elapsed))))


def build_optimizer(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """AdamW that lets matrices decay and leaves the norms' scales alone."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.97))


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    data: Iterator[tuple[Tensor, Tensor]],
    seconds: float,
    work: Path,
) -> float:
    """Train for `seconds`, with a log and checkpoints in `work`; returns the smoothed loss in nats per token."""
    optimizer = build_optimizer(model)
    started, saved, smoothed, step, num_tokens = time.monotonic(), time.monotonic(), 0.0, 0, 0
    columns = (TextColumn("step {task.fields[step]} loss {task.fields[loss]:.3f}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar, (work / "training.log").open("w", buffering=1) as log:
        task = bar.add_task("", total=1.0, step=0, loss=0.0)
        while (elapsed := (time.monotonic() - started) / seconds) < 1:
            ids, labels = next(data)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(elapsed)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step, num_tokens = step + 1, num_tokens + ids.numel()
            smoothed = loss.item() if step == 1 else 0.98 * smoothed + 0.02 * loss.item()
            bar.update(task, completed=elapsed, step=step, loss=smoothed)
            if step % 50 == 0:
                log.write(f"step {step}, {elapsed * seconds:.0f} s, {num_tokens} tokens, loss {smoothed:.4f}\n")
            if time.monotonic() - saved > CHECKPOINT_EVERY_S:
                save(model, tokenizer, work / "checkpoint")
                saved = time.monotonic()
    return smoothed


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a Hugging Face folder with bf16 weights; the model itself stays as it is."""
    weights = {name: weight.to(torch.bfloat16) for name, weight in model.state_dict().items()}
    del weights["lm_head.weight"]  # tied to the embedding
    copy = LlamaForCausalLM(model.config).to(torch.bfloat16)  # type: ignore[arg-type]
    copy.load_state_dict(weights, strict=False)
    copy.save_pretrained(folder)
    marks = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    generation = GenerationConfig(**marks, pad_token_id=tokenizer.pad_token_id)  # type: ignore[no-untyped-call]
    generation.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="time to train (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens a step (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/demo-model"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=Path("models/declai-demo"), help="Hugging Face folder to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = Corpus(END)
    tokenizer = train_tokenizer(corpus)
    model = build_model(tokenizer)
    print(json.dumps({"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}))
    data = batches(corpus, tokenizer, options.batch_tokens, random.Random(SEED))
    loss = train(model, tokenizer, data, options.minutes * 60, options.work)
    save(model, tokenizer, options.out)
    print(f"loss {loss:.3f} nats per token; wrote {options.out}")


if __name__ == "__main__":
    main()
