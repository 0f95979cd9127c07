"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from declai.errors import DeclaiError


class Level(StrEnum):
    """`problem`: the node cannot serve, or not for long. `warning`: it could do better, or nobody can tell."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """`value` is what was found, `advice` what to do next (empty when all is well). Neither ever holds a secret."""

    level: Level
    value: str
    advice: str = ""


def ok(value: str) -> Finding:
    return Finding(Level.OK, value)


def warning(value: str, advice: str) -> Finding:
    return Finding(Level.WARNING, value, advice)


def problem(value: str, advice: str) -> Finding:
    return Finding(Level.PROBLEM, value, advice)


class Unknown(DeclaiError):
    """Something that a check needs cannot be known; the text says why. Another check says what to do about it."""
