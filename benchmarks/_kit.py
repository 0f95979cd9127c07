"""What the benchmarks share: the reference model, and the record that each run leaves."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "build" / "benchmarks"
VOCAB_SIZE = 32_000


def reference_model(num_layers: int = 12, hidden_size: int = 768, dtype: str = "float32") -> Path:
    """A random Llama (by default of 134 million parameters in fp32) as a Hugging Face folder; made once.

    Its tokenizer has one word per token id ("w17"), so that a prompt's length in tokens is its length in words.
    """
    folder = OUTPUT / f"reference-{num_layers}x{hidden_size}{'' if dtype == 'float32' else '-' + dtype}"
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 8 // 3,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({f"w{index}": index for index in range(VOCAB_SIZE)}, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def record(name: str, figures: dict[str, Any], honesty: list[str]) -> None:
    """Print the figures and keep them."""
    keep(name, figures, honesty)
    for key, value in figures.items():
        print(f"{key:46} {value}")


def keep(name: str, figures: dict[str, Any], honesty: list[str]) -> None:
    """Write the figures down, with what was run, where, and what they do not show."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    result = {
        "name": name,
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "num_cpus": os.cpu_count(),
            "load_average": os.getloadavg(),
        },
        "versions": {package: version(package) for package in ("torch", "transformers", "numpy")}
        | {"python": platform.python_version()},
        "figures": figures,
        "honesty": honesty,
    }
    (OUTPUT / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
