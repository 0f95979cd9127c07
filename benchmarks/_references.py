"""What the ring is measured against: transformers' own `generate` and `generate_batch` in one process."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _network import Timing
from _ring import MAX_CONTEXT_TOKENS, MAX_SEQUENCES, Request

BATCH_BLOCK_TOKENS = 256  # transformers' own


class Whole:
    """The whole model in this process. Its times begin with the call, as if all requests came at that moment."""

    def __init__(self, folder: Path, dtype: str = "float32", device: str = "cpu") -> None:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device)
        self._device = device
        self.token_ids: list[list[int]] = []

    def generate(self, requests: Sequence[Request], num_threads: int) -> list[Timing]:
        """All requests in one static batch, padded on the left, run until the longest output is complete."""
        import torch
        from transformers import StoppingCriteria

        tokens_s: list[float] = []

        class Clock(StoppingCriteria):
            def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
                tokens_s.append(time.perf_counter() - began)
                return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

        torch.set_num_threads(num_threads)
        width = max(len(request.prompt) for request in requests)
        began = time.perf_counter()
        output = self._model.generate(
            torch.tensor([[0] * (width - len(r.prompt)) + r.prompt for r in requests], device=self._device),
            attention_mask=torch.tensor(
                [[0] * (width - len(r.prompt)) + [1] * len(r.prompt) for r in requests], device=self._device
            ),
            max_new_tokens=max(request.num_tokens for request in requests),
            do_sample=False,
            pad_token_id=0,
            stopping_criteria=[Clock()],
        )
        self.token_ids = output[:, width:].tolist()
        return [Timing(tokens_s[: request.num_tokens], request.num_tokens) for request in requests]

    def generate_batch(self, requests: Sequence[Request], num_threads: int) -> list[Timing]:
        """Continuous batching with a cache that just holds all requests: by default it takes, and clears, most of the
        memory. Times begin when the requests are handed in: set-up is left out."""
        answers = self._batch(requests, num_threads, num_blocks=2 * len(requests))
        return self._timings(answers, min(answer.created_time for answer in answers))

    def generate_batch_call(self, requests: Sequence[Request], num_threads: int) -> list[Timing]:
        """The whole call, with a cache that holds as many tokens as the ring's sessions may have together."""
        began = time.perf_counter()
        answers = self._batch(requests, num_threads, MAX_SEQUENCES * MAX_CONTEXT_TOKENS // BATCH_BLOCK_TOKENS)
        return self._timings(answers, began)

    def _batch(self, requests: Sequence[Request], num_threads: int, num_blocks: int) -> list[Any]:
        """Requests have one number of tokens."""
        import torch
        from transformers import ContinuousBatchingConfig, GenerationConfig

        torch.set_num_threads(num_threads)
        answers = self._model.generate_batch(
            [request.prompt for request in requests],
            generation_config=GenerationConfig(
                max_new_tokens=requests[0].num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
            ),
            continuous_batching_config=ContinuousBatchingConfig(num_blocks=num_blocks, max_batch_tokens=512),
            record_timestamps=True,
        )
        self.token_ids = [answer.generated_tokens for answer in answers.values()]
        return list(answers.values())

    @staticmethod
    def _timings(answers: Sequence[Any], began: float) -> list[Timing]:
        return [Timing([at - began for at in answer.timestamps], len(answer.generated_tokens)) for answer in answers]
