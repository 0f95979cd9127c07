"""The worker room's errors: one base class, one class per thing a caller can act on."""

from __future__ import annotations


class WorkerError(Exception):
    """Base of everything this room raises on purpose."""


class MalformedFrame(WorkerError):
    """Bytes from a link are no frame of ours. The receiver drops and counts them."""


class ForgedFrame(MalformedFrame):
    """A relayed frame was not sealed by the link key that it names, or was changed on its way."""


class RepeatedFrame(MalformedFrame):
    """A relayed frame came before, or was overtaken by a later one."""


class TaskRefused(WorkerError):
    """A node will not run a task. `code` is short and stable (it goes over the wire), the text is for people."""

    code = "task_refused"


class MalformedTask(TaskRefused):
    """The envelope or the job in it does not fit its schema or its size limits."""

    code = "malformed_task"


class UnknownGateway(TaskRefused):
    """The task is not signed by the signer of the active gateway that it names."""

    code = "unknown_gateway"


class WrongNetwork(TaskRefused):
    """The task is for another chain or another ledger."""

    code = "wrong_network"


class Misaddressed(TaskRefused):
    """The task is for another node."""

    code = "misaddressed"


class BadSignature(TaskRefused):
    """The request's or the assignment's signature is not by who must have signed it."""

    code = "bad_signature"


class InconsistentTask(TaskRefused):
    """Two parts of the task that must say the same thing do not."""

    code = "inconsistent_task"


class TaskExpired(TaskRefused):
    """The task's deadline has passed, or lies further ahead than this node keeps promises."""

    code = "expired"


class NotServed(TaskRefused):
    """The task asks for a model, layers or a size of job that this node does not serve."""

    code = "not_served"


class PriceTooLow(TaskRefused):
    """The assignment pays less than this node's offer asks."""

    code = "price_too_low"


class TaskReplayed(TaskRefused):
    """This node has taken this job before."""

    code = "replayed"


class NodeBusy(TaskRefused):
    """The node runs as many jobs as it can, or is draining."""

    code = "busy"


class InvalidGrammar(WorkerError):
    """A grammar that no output can be held to here; the text says why."""


class LinkError(WorkerError):
    """Something about a link that the sender must handle."""


class LinkFull(LinkError):
    """The peer takes bytes more slowly than they are made; nothing was sent."""


class LinkGone(LinkError):
    """The connection that a frame was to go back over is no more; nothing was sent."""


class LinkKeyError(LinkError):
    """A link key file is missing, readable by others, or not a key pair."""


class CommitmentError(WorkerError):
    """Rows given to a commitment do not continue it, or it cannot be sealed at that length."""


class InvalidReceipt(WorkerError):
    """A receipt, its signature or its records do not hold."""


class StoreError(WorkerError):
    """The node's own durable store refused."""


class BrokerError(WorkerError):
    """The task queue could not be reached or set up."""


class NodeStartError(WorkerError):
    """A node cannot start with these settings; the text says which and what to do."""
