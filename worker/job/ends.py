"""How a job ends at a stage, and what is raised on the way there."""

from __future__ import annotations

from dataclasses import dataclass

from declai.protocol import wire
from declai.protocol.commitments import Commitment
from declai.protocol.failures import FailureCode
from declai.protocol.peers import Peer
from declai.worker.errors import WorkerError


@dataclass(frozen=True)
class JobEnd:
    """How a job ended here. With a `commitment` there is a receipt to sign; with a `code` it failed.

    `RunningJob.end` never has the commitment: `RunningJob.conclude` adds it.
    """

    num_output_tokens: int = 0
    finish_reason: wire.FinishReason | None = None
    commitment: Commitment | None = None
    code: FailureCode | None = None
    message: str = ""


class ForeignFrame(WorkerError):
    """A frame from someone who does not speak for that role in this job. It is dropped and counted."""


class JobFailed(WorkerError):
    """The job is over; `code`, and who is `blamed` where it is another node, go to the gateway and the neighbours."""

    def __init__(self, code: FailureCode, message: str, blamed: Peer | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.blamed = blamed
