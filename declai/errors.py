"""The client's error family. Each text says what was wrong, with which value, and what to do next.

* DeclaiError
  * ApiError
  * MissingExtra
  * NetworkNotFound
  * ProcessError
  * ReceiptError
  * SessionError
  * Unknown
  * WalletError
"""

from __future__ import annotations


class DeclaiError(Exception):
    """Base of every error that the SDK and the CLI raise on purpose."""


class NetworkNotFound(DeclaiError):
    """No network file where one was expected."""


class WalletError(DeclaiError):
    """A keystore is missing, unreadable, or its password is wrong."""


class SessionError(DeclaiError):
    """No usable session: none opened, spent, closing, or of another network."""


class ReceiptError(DeclaiError):
    """What the gateway or a node claims does not check; nothing of it is acknowledged."""


class ApiError(DeclaiError):
    """The gateway refused or failed a request.

    `status` is the HTTP status (0 for a failure in mid-stream); `type`, `param` and `code` are the API's own words.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        type: str = "api_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.code = code
