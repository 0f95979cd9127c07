"""What an engine refuses. Each error ends at most the sequence it is about; `code` is what other machines are told."""

from typing import ClassVar

from declai.protocol.failures import FailureCode
from declai.worker.errors import WorkerError


class EngineError(WorkerError):
    code: ClassVar[FailureCode] = FailureCode.ENGINE_ERROR


class AtCapacity(EngineError):
    """No room for one more sequence now; another node or a later time may do. `reason`: of what there is too little."""

    code = FailureCode.AT_CAPACITY

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class InvalidSequence(EngineError):
    """A sequence that this stage can never run, whatever its load."""

    code = reason = FailureCode.INVALID_SEQUENCE


class UnknownSequence(EngineError):
    """No sequence of this id is open: never added, finished, removed or failed."""

    code = FailureCode.UNKNOWN_SEQUENCE


class InvalidInput(EngineError):
    """Token ids or hidden states that are not what the stage takes."""

    code = FailureCode.INVALID_INPUT


class PositionMismatch(EngineError):
    """Input that does not continue where the sequence stands, or goes past its end."""

    code = FailureCode.POSITION_MISMATCH


class ForwardFailed(EngineError):
    """The model could not compute this sequence's next tokens."""

    code = FailureCode.FORWARD_FAILED
