"""The chain room's errors: one base class; each text says what was wrong, with which value, and what to do next."""

from __future__ import annotations


class ChainError(Exception):
    """Base of everything this room raises on purpose."""


class BadSignature(ChainError):
    """A signature is malformed, malleable, or not by who should have signed."""


class KeystoreError(ChainError):
    """A keystore is missing, damaged, exists already, or its password is wrong."""


class InvalidAmount(ChainError):
    """Text that is no amount of credits, or has more than 18 decimals."""
