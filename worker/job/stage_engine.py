"""What a running job needs of an engine, and what it asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from declai.chain.pricing import BPS, Tier
from declai.protocol import wire
from declai.protocol.grammar import Constraint
from declai.protocol.jobs import StageJob
from declai.worker.engine import SequenceSpec, StageOutput
from declai.worker.engine.runner import Payload


class StageEngine(Protocol):
    """What a running job needs of `worker.engine.Engine`."""

    @property
    def step_in_s(self) -> float | None: ...
    def add(self, sequence_id: bytes, spec: SequenceSpec) -> None: ...
    def feed(self, sequence_id: bytes, first_position: int, payload: Payload) -> None: ...
    def kept_rows(self, sequence_id: bytes, first: int, end: int) -> NDArray[np.uint8]: ...
    def hold(self, sequence_id: bytes, held: bool) -> None: ...
    def step(self) -> list[StageOutput]: ...
    def remove(self, sequence_id: bytes) -> None: ...


@dataclass(frozen=True)
class StageIdentity:
    """What a stage computes with: numeric profile, the dtype on its links, and 32 bytes that name its weights."""

    profile: str
    dtype: wire.Dtype
    shard_root: bytes


def sequence_spec(job: StageJob, constraint: Constraint | None) -> SequenceSpec:
    return SequenceSpec(
        num_prompt_tokens=job.num_prompt_tokens,
        max_tokens=job.max_tokens,
        options=job.options,
        eos_token_ids=job.eos_token_ids,
        prompt_token_ids=job.prompt_token_ids,
        constraint=constraint,
        cache_salt=job.request.session,
        weight=Tier(job.request.tier).factor_bps / BPS,  # who pays twice as much per token gets twice as many
        num_stages=job.num_stages,
    )
