"""What the ring is measured against: transformers' own `generate` and `generate_batch` in one process."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _network import Timing
from _ring import Request


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
        memory. Requests have one number of tokens. Times begin when the requests are handed in: set-up is left out."""
        import torch
        from transformers import ContinuousBatchingConfig, GenerationConfig

        torch.set_num_threads(num_threads)
        num_tokens = requests[0].num_tokens
        options = ContinuousBatchingConfig(num_blocks=2 * len(requests), max_batch_tokens=512)
        answers = self._model.generate_batch(
            [request.prompt for request in requests],
            generation_config=GenerationConfig(
                max_new_tokens=num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
            ),
            continuous_batching_config=options,
            record_timestamps=True,
        )
        began = min(answer.created_time for answer in answers.values())
        self.token_ids = [answer.generated_tokens for answer in answers.values()]
        return [Timing([at - began for at in answer.timestamps], num_tokens) for answer in answers.values()]
