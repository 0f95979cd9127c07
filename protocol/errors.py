"""The protocol room's errors: one base class, one class per thing a caller can act on.

* ProtocolError
  * BadRows
  * CommitmentError
  * InvalidGrammar
  * InvalidPrompt
  * InvalidReceipt
  * InvalidSignedRequest
    * SignedRequestExpired
  * MalformedFrame
    * ForgedFrame
    * OtherWireVersion
    * RepeatedFrame
  * MalformedSignIn
  * NonFiniteLogits
  * NotSettled
  * SignInRefused
  * TaskRefused
    * BadTaskSignature
    * InconsistentTask
    * MalformedTask
    * Misaddressed
    * NotServed
    * PriceTooLow
    * TaskExpired
    * TaskReplayed
    * UnknownGateway
    * WrongNetwork
  * TemplateRefused
"""

from __future__ import annotations

from typing import ClassVar

from declai.protocol.failures import FailureCode


class ProtocolError(Exception):
    """Base of everything this room raises on purpose."""


class MalformedFrame(ProtocolError):
    """Bytes from a link are no frame of ours. The receiver drops and counts them."""


class ForgedFrame(MalformedFrame):
    """A relayed frame was not sealed by the link key that it names, or was changed on its way."""


class RepeatedFrame(MalformedFrame):
    """A relayed frame came before, or was overtaken by a later one."""


class OtherWireVersion(MalformedFrame):
    """A frame is of another version of the wire format than this program's."""

    def __init__(self, theirs: int, ours: int) -> None:
        super().__init__(
            f"the other side speaks version {theirs} of the wire format, this program {ours}: "
            "install the same release of declai on both"
        )


class TaskRefused(ProtocolError):
    """A node will not run a task. The `code` goes over the wire, the text is for people."""

    code: ClassVar[FailureCode]


class MalformedTask(TaskRefused):
    """The envelope or the job in it does not fit its schema or its size limits."""

    code = FailureCode.MALFORMED_TASK


class UnknownGateway(TaskRefused):
    """The task is not signed by the signer of the active gateway that it names."""

    code = FailureCode.UNKNOWN_GATEWAY


class WrongNetwork(TaskRefused):
    """The task is for another chain or another ledger."""

    code = FailureCode.WRONG_NETWORK


class Misaddressed(TaskRefused):
    """The task is for another node."""

    code = FailureCode.MISADDRESSED


class BadTaskSignature(TaskRefused):
    """The request's or the assignment's signature is not by who must have signed it."""

    code = FailureCode.BAD_SIGNATURE


class InconsistentTask(TaskRefused):
    """Two parts of the task that must say the same thing do not."""

    code = FailureCode.INCONSISTENT_TASK


class TaskExpired(TaskRefused):
    """The task's deadline has passed, or lies further ahead than this node keeps promises."""

    code = FailureCode.EXPIRED


class NotServed(TaskRefused):
    """The task asks for a model, layers or a size of job that this node does not serve."""

    code = FailureCode.NOT_SERVED


class PriceTooLow(TaskRefused):
    """The assignment pays less than this node's offer asks."""

    code = FailureCode.PRICE_TOO_LOW


class TaskReplayed(TaskRefused):
    """This node has taken this job before."""

    code = FailureCode.REPLAYED


class InvalidGrammar(ProtocolError):
    """A grammar that no output can be held to here; the text says why."""


class InvalidPrompt(ProtocolError):
    """A request's body holds no prompt, or more than one."""


class TemplateRefused(ProtocolError):
    """A model's chat template refuses a conversation, fails, or does not come to an end."""


class CommitmentError(ProtocolError):
    """Rows given to a commitment do not continue it, or it cannot be sealed at that length."""


class InvalidReceipt(ProtocolError):
    """A receipt, its signature or its records do not hold."""


class NonFiniteLogits(ProtocolError):
    """The model produced NaN or infinity; no token can be drawn from that."""


class BadRows(ProtocolError):
    """Bytes that no honest sender of this format makes, or values that no format carries."""


class NotSettled(ProtocolError):
    """No batch on chain holds the request."""


class InvalidSignedRequest(ProtocolError):
    """The header of a signed request cannot be read, or the signature is not for this body, model or key."""


class SignedRequestExpired(InvalidSignedRequest):
    """The deadline that was signed has passed, or lies too far ahead."""


class MalformedSignIn(ProtocolError):
    """A text is no EIP-4361 message; the error says where it deviates."""


class SignInRefused(ProtocolError):
    """A sign-in message is for another place, another chain or another time."""
