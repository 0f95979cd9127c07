"""The chain room's errors: one base class; each text says what was wrong, with which value, and what to do next.

* ChainError
  * BadSignature
  * ChainUnreachable
  * CompileError
  * ContractRevert
  * DeploymentError
  * InvalidAmount
  * KeystoreError
  * NonceTaken
  * TransactionFailed
  * TransactionUnconfirmed
"""

from __future__ import annotations

from urllib.parse import urlsplit


def host_of(url: str) -> str:
    """What an error may say of an RPC URL: its path, query and user part hold the keys of paid endpoints."""
    return urlsplit(url).netloc.rpartition("@")[2]


class ChainError(Exception):
    """Base of everything this room raises on purpose."""


class BadSignature(ChainError):
    """A signature is malformed, malleable, or not by who should have signed."""


class KeystoreError(ChainError):
    """A keystore is missing, damaged, exists already, or its password is wrong."""


class InvalidAmount(ChainError):
    """Text that is no amount of credits, or has more than 18 decimals."""


class ChainUnreachable(ChainError):
    """The RPC endpoint does not answer, or is another chain than the deployment's."""


class ContractRevert(ChainError):
    """A contract refused a call with one of its custom errors: `name` and `values` say which and why."""

    def __init__(self, name: str, values: dict[str, object]) -> None:
        details = ", ".join(f"{key}={value}" for key, value in values.items())
        super().__init__(f"{name}({details})")
        self.name = name
        self.values = values


class TransactionFailed(ChainError):
    """A mined transaction reverted."""


class TransactionUnconfirmed(ChainError):
    """A transaction did not reach its depth in time. It may still be mined: its hash is in the text."""


class DeploymentError(ChainError):
    """A deployment file is missing or wrong, or parameters are out of bounds."""


class NonceTaken(ChainError):
    """Another transaction of the account was mined in this one's place: prepare it anew."""
