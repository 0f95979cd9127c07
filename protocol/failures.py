"""Why a job failed: stable names for programs, from the engine to the gateway. The frame `Failed` carries one."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class FailureCode(StrEnum):
    """What a node refuses, what ends a job at a stage, and what a gateway says or finds itself.

    A name that this program does not know is UNKNOWN: what others write becomes no label of a metric.
    """

    MALFORMED_TASK = "malformed_task"
    UNKNOWN_GATEWAY = "unknown_gateway"
    WRONG_NETWORK = "wrong_network"
    MISADDRESSED = "misaddressed"
    BAD_SIGNATURE = "bad_signature"
    INCONSISTENT_TASK = "inconsistent_task"
    EXPIRED = "expired"
    NOT_SERVED = "not_served"
    PRICE_TOO_LOW = "price_too_low"
    REPLAYED = "replayed"
    BUSY = "busy"
    AT_CAPACITY = "at_capacity"
    INVALID_SEQUENCE = "invalid_sequence"

    ENGINE_ERROR = "engine_error"
    UNKNOWN_SEQUENCE = "unknown_sequence"
    INVALID_INPUT = "invalid_input"
    POSITION_MISMATCH = "position_mismatch"
    FORWARD_FAILED = "forward_failed"
    NOT_FINITE = "not_finite"
    WRONG_PROMPT = "wrong_prompt"
    WRONG_DTYPE = "wrong_dtype"
    FINISH_MISMATCH = "finish_mismatch"
    ROWS_LOST = "rows_lost"
    LINK_FULL = "link_full"
    PEER_LOST = "peer_lost"
    IDLE_TIMEOUT = "idle_timeout"
    DEADLINE = "deadline"
    NODE_ERROR = "node_error"
    NODE_STOPPED = "node_stopped"
    CANCELLED = "cancelled"

    ABANDONED = "abandoned"
    REPLACED = "replaced"
    RELAY_FULL = "relay_full"
    INVALID_OUTPUT = "invalid_output"
    INVALID_RECEIPT = "invalid_receipt"

    UNKNOWN = "unknown"

    @classmethod
    def _missing_(cls, value: object) -> Self:
        return cls("unknown")
