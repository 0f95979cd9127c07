"""The package's optional parts: `declai[node]` serves, `declai[gateway]` runs a gateway, `declai[devnet]` does both.

What each of them needs stands in pyproject.toml, and so in the installed package's metadata.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution, requires

from declai.errors import DeclaiError

REQUIREMENT = re.compile(r"""^([A-Za-z0-9._-]+).*;.*\bextra == ["']([a-z]+)["']""")


class MissingExtra(DeclaiError):
    """A command needs packages of an extra that is not installed; the text says which extra to install."""


def require(extra: str) -> None:
    """Raises MissingExtra unless all packages of an extra are installed."""
    lacking = sorted(name for name in packages_of(extra) if not _is_installed(name))
    if lacking:
        raise MissingExtra(f"this needs {', '.join(lacking)}: pip install 'declai[{extra}]'")


def packages_of(extra: str) -> set[str]:
    """The names of what an extra asks for, other extras of ours included; none in a checkout that is not installed."""
    try:
        lines = requires("declai") or []
    except PackageNotFoundError:
        return set()
    found = set[str]()
    for line in lines:
        match = REQUIREMENT.match(line)
        if match is None or match[2] != extra:
            continue
        inner = re.match(r"declai\[([a-z,]+)\]", line)
        found |= set().union(*map(packages_of, inner[1].split(","))) if inner else {match[1]}
    return found


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
