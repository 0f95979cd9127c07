"""What an engine refuses. Each error ends at most the sequence it is about; `code` is what other machines are told."""

from typing import ClassVar

from declai.worker.errors import WorkerError


class EngineError(WorkerError):
    code: ClassVar[str] = "engine_error"


class AtCapacity(EngineError):
    """No room for one more sequence now; another node or a later time may do. `reason`: of what there is too little."""

    code = "at_capacity"

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class InvalidSequence(EngineError):
    """A sequence that this stage can never run, whatever its load."""

    code = reason = "invalid_sequence"


class UnknownSequence(EngineError):
    """No sequence of this id is open: never added, finished, removed or failed."""

    code = "unknown_sequence"


class InvalidInput(EngineError):
    """Token ids or hidden states that are not what the stage takes."""

    code = "invalid_input"


class PositionMismatch(EngineError):
    """Input that does not continue where the sequence stands, or goes past its end."""

    code = "position_mismatch"


class ForwardFailed(EngineError):
    """The model could not compute this sequence's next tokens."""

    code = "forward_failed"
