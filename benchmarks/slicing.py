"""What cutting a model into three stages costs, without any network: three engines chained by hand against `generate`.

One thread, one process, the same weights, greedy; rounds of both alternate. Time is processor time, so that what else
the machine does counts little. Also the cost of drawing one token.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _kit import VOCAB_SIZE, record, reference_model

from declai.worker.model.threads import use_passive_waiting

NUM_PROMPT_TOKENS = 64
NUM_OUTPUT_TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    use_passive_waiting()
    import torch

    torch.set_num_threads(1)
    folder = reference_model()
    prompt = torch.randint(VOCAB_SIZE, (NUM_PROMPT_TOKENS,), generator=torch.Generator().manual_seed(0)).tolist()
    whole, chained = whole_model(folder), chained_engines(folder)
    same = whole(prompt) == chained(prompt)
    seconds: dict[str, list[float]] = {"whole": [], "chained": []}
    for _ in range(rounds):
        seconds["whole"].append(timed(whole, prompt))
        seconds["chained"].append(timed(chained, prompt))
    speeds = {name: NUM_OUTPUT_TOKENS / min(times) for name, times in seconds.items()}
    ratios = [one / three for one, three in zip(seconds["whole"], seconds["chained"], strict=True)]
    figures: dict[str, Any] = {
        "token_identical": same,
        "generate_tokens_per_s": round(speeds["whole"], 2),
        "three_engines_tokens_per_s": round(speeds["chained"], 2),
        "ratio_of_best_rounds": round(speeds["chained"] / speeds["whole"], 3),
        "ratio_median_of_rounds": round(statistics.median(ratios), 3),
        "rounds": rounds,
    }
    record(
        "slicing",
        figures | sampling_costs(),
        [
            "One process: no serialisation over a network, no two stages at once.",
            "Random weights; 64 prompt and 64 output tokens; the time includes the prompt.",
        ],
    )


def whole_model(folder: Path) -> Callable[[list[int]], list[int]]:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def run(prompt: list[int]) -> list[int]:
        output = model.generate(
            torch.tensor([prompt]), max_new_tokens=NUM_OUTPUT_TOKENS, do_sample=False, pad_token_id=0
        )
        token_ids: list[int] = output[0, len(prompt) :].tolist()
        return token_ids

    return run


def chained_engines(folder: Path) -> Callable[[list[int]], list[int]]:
    from declai.protocol.options import GenerationOptions, Sampling
    from declai.worker.engine import Engine, EngineLimits, HiddenRows, SampledToken, SequenceSpec
    from declai.worker.model.architecture import inspect_architecture
    from declai.worker.model.stage import Stage

    architecture = inspect_architecture(folder)
    greedy = GenerationOptions(sampling=Sampling(temperature=0))
    limits = EngineLimits(max_sequences=1, max_context_tokens=2048, max_cache_bytes=1 << 30)
    engines = [
        Engine(Stage.load(architecture, first, end, [folder / "model.safetensors"]), limits)
        for first, end in ((0, 4), (4, 8), (8, 12))
    ]

    def run(prompt: list[int]) -> list[int]:
        for engine in engines:
            last = engine is engines[-1]
            engine.add(b"sequence", SequenceSpec(len(prompt), NUM_OUTPUT_TOKENS, greedy if last else None))
        engines[0].feed(b"sequence", 0, prompt)
        token_ids: list[int] = []
        while len(token_ids) < NUM_OUTPUT_TOKENS:
            for index, engine in enumerate(engines):
                for output in engine.step():
                    if isinstance(output, HiddenRows):
                        rows = memoryview(output.rows).cast("B")
                        engines[index + 1].feed(output.sequence_id, output.first_position, rows)
                    elif isinstance(output, SampledToken):
                        token_ids.append(output.token_id)
                        if output.finish_reason is None:
                            engines[0].feed(b"sequence", output.position, [output.token_id])
                    else:
                        raise output.error
        for engine in engines:
            engine.remove(b"sequence")
        return token_ids

    return run


def timed(run: Callable[[list[int]], list[int]], prompt: list[int]) -> float:
    began = time.process_time()
    run(prompt)
    return time.process_time() - began


def sampling_costs() -> dict[str, float]:
    """Milliseconds to draw one token, the median of 50."""
    import numpy as np

    from declai.protocol.options import Sampling
    from declai.protocol.sampling import sample

    kinds = {
        "greedy": Sampling(temperature=0),
        "temperature": Sampling(),
        "top_k_50": Sampling(top_k=50),
        "top_p_0.95": Sampling(top_p=0.95),
    }
    costs: dict[str, float] = {}
    for vocab_size in (32_000, 128_256):
        logits = (np.random.default_rng(0).standard_normal(vocab_size) * 3).astype(np.float32)
        for name, parameters in kinds.items():
            times = []
            for position in range(50):
                began = time.perf_counter()
                sample(logits, parameters, position)
                times.append(time.perf_counter() - began)
            costs[f"sample_{name}_{vocab_size}_ms"] = round(statistics.median(times) * 1000, 3)
    return costs


if __name__ == "__main__":
    main()
