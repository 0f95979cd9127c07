"""Engines of one model's stages, chained by hand in one process."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from declai.protocol.options import GenerationOptions, Sampling
from declai.worker.engine import (
    Engine,
    EngineError,
    EngineLimits,
    HiddenRows,
    SampledToken,
    SequenceFailed,
    SequenceSpec,
)
from declai.worker.engine.memory.kept_rows import KeptRows
from declai.worker.model.stage import Stage
from tests.support.zoo import NUM_LAYERS, VOCAB_SIZE, Zoo

GREEDY = Sampling(temperature=0)
LIMITS = EngineLimits(max_sequences=4, max_context_tokens=640, max_cache_bytes=1 << 24)


class Pipeline:
    def __init__(
        self,
        zoo: Zoo,
        name: str,
        boundaries: Sequence[int] = (0, 1, 3, NUM_LAYERS),
        limits: EngineLimits = LIMITS,
        tokenizer: Tokenizer | None = None,
        profile: str = "fp32",
        max_kept_bytes: int = 1 << 24,
    ) -> None:
        files = [zoo.folder(name) / "model.safetensors"]
        stages = [Stage.load(zoo.architecture(name), first, end, files, profile) for first, end in pairwise(boundaries)]
        self.engines = [
            Engine(stage, limits, tokenizer if stage.is_last else None, KeptRows(max_kept_bytes)) for stage in stages
        ]
        self.tokens: dict[bytes, list[SampledToken]] = {}

    def start(self, sequence_id: bytes, prompt: Sequence[int], spec: SequenceSpec) -> None:
        for engine in self.engines[:-1]:
            engine.add(sequence_id, replace(spec, options=None))
        self.engines[-1].add(sequence_id, spec)
        self.tokens[sequence_id] = []
        self.engines[0].feed(sequence_id, 0, prompt)

    def step(self) -> bool:
        """One step of every engine; whether any did something."""
        worked = False
        failure: EngineError | None = None
        for index, engine in enumerate(self.engines):
            for output in engine.step():
                worked = True
                match output:
                    case HiddenRows():
                        rows = memoryview(output.rows).cast("B")
                        self.engines[index + 1].feed(output.sequence_id, output.first_position, rows)
                        worked = True
                    case SampledToken():
                        self._take(output)
                    case SequenceFailed():
                        failure = output.error
            worked = worked or engine.has_work
        if failure is not None:
            raise failure
        return worked

    def run(self) -> None:
        while self.step():
            pass

    def generate(self, prompt: Sequence[int], spec: SequenceSpec) -> list[SampledToken]:
        self.start(b"only", prompt, spec)
        self.run()
        return self.tokens.pop(b"only")

    def _take(self, token: SampledToken) -> None:
        self.tokens[token.sequence_id].append(token)
        if token.finish_reason is None:
            self.engines[0].feed(token.sequence_id, token.position, [token.token_id])
        else:
            for engine in self.engines:
                engine.remove(token.sequence_id)


def spec(prompt: Sequence[int], max_tokens: int, sampling: Sampling = GREEDY, **more: Any) -> SequenceSpec:
    """`more`: further fields of the spec, or of its options."""
    options = {name: more.pop(name) for name in GenerationOptions.model_fields.keys() & more.keys()}
    return SequenceSpec(len(prompt), max_tokens, GenerationOptions(sampling=sampling, **options), **more)


def ids(tokens: Sequence[SampledToken]) -> list[int]:
    return [token.token_id for token in tokens]


def prompt_of(num_tokens: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    token_ids: list[int] = torch.randint(3, VOCAB_SIZE, (num_tokens,), generator=generator).tolist()
    return token_ids


def generated(zoo: Zoo, name: str, prompt: Sequence[int], max_tokens: int, **options: object) -> list[int]:
    output = zoo.whole(name).generate(
        torch.tensor([prompt]),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        **options,
    )
    token_ids: list[int] = output[0, len(prompt) :].tolist()
    return token_ids


def engine_of(zoo: Zoo, first: int, end: int, limits: EngineLimits = LIMITS, name: str = "llama") -> Engine:
    return Engine(Stage.load(zoo.architecture(name), first, end, [zoo.folder(name) / "model.safetensors"]), limits)


def hidden(value: float = 0.5, rows: int = 2) -> np.ndarray:
    return np.full((rows, 32), value, dtype=np.float32)


def ask(pipeline: Pipeline, prompt: Sequence[int], max_tokens: int = 8, salt: bytes = b"payer") -> list[int]:
    return ids(pipeline.generate(prompt, spec(prompt, max_tokens, cache_salt=salt)))


def reused(pipeline: Pipeline) -> list[int]:
    return [engine.stats.num_reused_tokens for engine in pipeline.engines]
