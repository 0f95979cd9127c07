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
    * StoreTooNew
    * StoreTooOld
  * UnsupportedArchitecture
"""

from __future__ import annotations


class WorkerError(Exception):
    """Base of everything this room raises on purpose."""


class StoreError(WorkerError):
    """The node's own durable store refused."""


class StoreTooNew(StoreError):
    """A later release wrote the node's store."""


class StoreTooOld(StoreError):
    """An earlier release wrote the node's store, and whoever opens it may not migrate it now."""


class BrokerError(WorkerError):
    """The task queue could not be reached or set up."""


class NodeStartError(WorkerError):
    """A node cannot start with these settings; the text says which and what to do."""
