"""The worker room's errors: one base class, one class per thing a caller can act on.

* WorkerError
  * BrokerError
  * EngineError
    * AtCapacity
    * ForwardFailed
    * InvalidInput
    * InvalidSequence
    * PositionMismatch
    * UnknownSequence
  * ForeignFrame
  * JobFailed
  * NodeStartError
  * NotLoaded
  * PositionGap
  * Refused
  * RowsLost
  * StageLoadError
  * StoreError
  * UnsupportedArchitecture
"""

from __future__ import annotations


class WorkerError(Exception):
    """Base of everything this room raises on purpose."""


class StoreError(WorkerError):
    """The node's own durable store refused."""


class BrokerError(WorkerError):
    """The task queue could not be reached or set up."""


class NodeStartError(WorkerError):
    """A node cannot start with these settings; the text says which and what to do."""
