"""The gateway's errors: each knows its HTTP status and OpenAI's words for it, and tells the caller what to do next.

* GatewayError
  * AcknowledgementMismatch
  * AuthenticationFailed
    * DeadlineExpired
    * InvalidSignature
    * NodeNotRegistered
    * SessionUnusable
  * BookkeepingUnavailable
  * BrokerUnavailable
  * BudgetExhausted
  * CapTooLow
  * ChainTrouble
  * ClientGone
  * InvalidRequest
    * BodyTooLarge
    * ContextLengthExceeded
    * MethodNotAllowed
    * ModelNotFound
    * NotFound
    * UnknownParameter
    * UnsupportedParameter
    * WrongWireVersion
  * NoCapacity
  * NonceReplayed
  * Overloaded
  * StageFailed
    * AttemptFailed
  * StoreUnusable
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from declai.protocol.failures import FailureCode


class GatewayError(Exception):
    """Base of everything that a caller of the gateway may see."""

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.details = dict(details or {})

    @property
    def headers(self) -> dict[str, str]:
        return {}

    def body(self) -> dict[str, Any]:
        """The error object of the API; `details` are additions of ours."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error | self.details}


class InvalidRequest(GatewayError):
    """The request itself is wrong; sending it again will not help."""

    status, type, code = 400, "invalid_request_error", "invalid_request"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"


class WrongWireVersion(InvalidRequest):
    """A node speaks another version of the wire format on its links than this gateway."""

    code = "wrong_wire_version"


class BodyTooLarge(InvalidRequest):
    status, code = 413, "body_too_large"


class NotFound(InvalidRequest):
    status, code = 404, "not_found"


class ModelNotFound(InvalidRequest):
    status, code = 404, "model_not_found"


class AuthenticationFailed(GatewayError):
    """Who asks is not known, or a signature does not hold."""

    status, type, code = 401, "authentication_error", "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class InvalidSignature(AuthenticationFailed):
    code = "invalid_signature"


class DeadlineExpired(AuthenticationFailed):
    code = "deadline_expired"


class SessionUnusable(AuthenticationFailed):
    """The session is unknown, over, or of another gateway or key."""

    status, code = 403, "session_unusable"


class NonceReplayed(GatewayError):
    status, type, code = 409, "conflict_error", "nonce_replayed"


class AcknowledgementMismatch(GatewayError):
    """`spent` is not what the gateway's books say; `details` hold what they say."""

    status, type, code = 409, "conflict_error", "acknowledgement_mismatch"


class BudgetExhausted(GatewayError):
    """The session's budget does not cover the request's cap beside what is spent and in flight."""

    status, type, code = 402, "insufficient_quota", "budget_exhausted"


class CapTooLow(GatewayError):
    """The signed `maxCost` is below what the request may cost; `details` hold the price."""

    status, type, code = 402, "insufficient_quota", "max_cost_too_low"


class Overloaded(GatewayError):
    """Too many requests are under way."""

    status, type, code = 429, "rate_limit_error", "overloaded"

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"}


class NoCapacity(GatewayError):
    """No live nodes cover the model."""

    status, type, code = 503, "server_error", "no_capacity"

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "5"}


class StageFailed(GatewayError):
    """A stage was lost or refused; nothing is charged."""

    status, type, code = 502, "server_error", "stage_failed"


class AttemptFailed(StageFailed):
    """A node spoiled the attempt: `failure` says how, `address` names it, or is None when nobody can be named."""

    def __init__(self, failure: FailureCode, message: str, address: str | None) -> None:
        super().__init__(message)
        self.failure = failure
        self.address = address


class ClientGone(GatewayError):
    """The client went away before anything was made; nothing is charged."""

    code = "cancelled"


class StoreUnusable(GatewayError):
    """The durable store is of a kind or version that this program does not write."""


class BrokerUnavailable(GatewayError):
    """Redis does not answer: no node can be given an account or a task now."""

    status, type, code = 503, "server_error", "broker_unavailable"

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"}


class BookkeepingUnavailable(GatewayError):
    """Redis does not answer: no budget can be reserved now."""

    status, type, code = 503, "server_error", "bookkeeping_unavailable"

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": "2"}
