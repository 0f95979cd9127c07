"""The engine of one stage: sessions in, hidden states or tokens out. It knows no sockets, queues or signatures."""

from worker.engine.engine import Engine
from worker.engine.errors import (
    AtCapacity,
    EngineError,
    ForwardFailed,
    InvalidInput,
    InvalidSession,
    PositionMismatch,
    UnknownSession,
)
from worker.engine.session import (
    EngineLimits,
    FinishReason,
    HiddenRows,
    SampledToken,
    SessionFailed,
    SessionSpec,
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
    "InvalidSession",
    "PositionMismatch",
    "SampledToken",
    "SessionFailed",
    "SessionSpec",
    "StageOutput",
    "UnknownSession",
]
