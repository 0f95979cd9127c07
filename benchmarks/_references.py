"""What the ring is measured against: transformers' own `generate` and `generate_batch` in one process."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _network import Timing
from _ring import Request

BATCH_BLOCK_TOKENS = 256  # transformers' own


class CannotRun(Exception):
    """This machine is too small for a reference; the text says of what there is too little."""


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
        """Continuous batching. Times begin when the requests are handed in: set-up is left out.

        Requests have one number of tokens. The cache just holds them all: by default it takes, and clears, most of the
        memory. Raises CannotRun where there is not even so much.
        """
        import torch
        from transformers import ContinuousBatchingConfig, GenerationConfig

        torch.set_num_threads(num_threads)
        tokens = [len(request.prompt) + request.num_tokens for request in requests]
        sizes = ContinuousBatchingConfig(
            page_size=BATCH_BLOCK_TOKENS,
            num_blocks=sum(-(-count // BATCH_BLOCK_TOKENS) for count in tokens),
            max_batch_tokens=512,
            max_requests_per_batch=len(requests),
        )
        try:
            answers = self._model.generate_batch(
                [request.prompt for request in requests],
                generation_config=GenerationConfig(
                    max_new_tokens=requests[0].num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
                ),
                continuous_batching_config=sizes,
                record_timestamps=True,
            ).values()
        except (MemoryError, RuntimeError) as error:  # torch's own kind, too, where an allocation fails
            raise CannotRun(f"{type(error).__name__}: {error}") from error
        self.token_ids = [answer.generated_tokens for answer in answers]
        if [len(token_ids) for token_ids in self.token_ids] != [request.num_tokens for request in requests]:
            raise CannotRun("generate_batch gave up: its log says why")
        began = min(answer.created_time for answer in answers)
        return [Timing([at - began for at in answer.timestamps], len(answer.generated_tokens)) for answer in answers]
