"""The engine of one stage: sequences in, hidden states or tokens out. It knows no sockets, queues or signatures."""

from declai.worker.engine.engine import Engine
from declai.worker.engine.errors import (
    AtCapacity,
    EngineError,
    ForwardFailed,
    InvalidInput,
    InvalidSequence,
    PositionMismatch,
    UnknownSequence,
)
from declai.worker.engine.sequence import (
    EngineLimits,
    FinishReason,
    HiddenRows,
    SampledToken,
    SequenceFailed,
    SequenceSpec,
    StageOutput,
)

__all__ = [
    "AtCapacity",
    "Engine",
    "EngineError",
    "EngineLimits",
    "FinishReason",
    "ForwardFailed",
    "HiddenRows",
    "InvalidInput",
    "InvalidSequence",
    "PositionMismatch",
    "SampledToken",
    "SequenceFailed",
    "SequenceSpec",
    "StageOutput",
    "UnknownSequence",
]
