"""The error families: every public exception of a room derives from the room's one base, and errors.py draws them."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

import pytest

from tests.support.source_tree import ROOT, files_of

BASES = {
    "chain": "ChainError",
    "ipfs": "IpfsError",
    "protocol": "ProtocolError",
    "storage": "StorageError",
    "links": "LinkError",
    "planning": "PlanningError",
    "worker": "WorkerError",
    "api": "GatewayError",
    "declai": "DeclaiError",
}


def classes_of(room: str) -> dict[str, list[str]]:
    """The names of a room's classes with those of their bases."""
    return {
        node.name: [name for name in map(last_name, node.bases) if name]
        for path in files_of(room)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }


def last_name(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""


ALL = {name: bases for room in BASES for name, bases in classes_of(room).items()}


def ancestors(name: str) -> Iterator[str]:
    for base in ALL.get(name, []):
        yield base
        yield from ancestors(base)


def is_exception(name: str) -> bool:
    known = (getattr(builtins, ancestor, None) for ancestor in ancestors(name))
    return any(isinstance(cls, type) and issubclass(cls, BaseException) for cls in known)


def public_exceptions(room: str) -> set[str]:
    return {name for name in classes_of(room) if not name.startswith("_") and is_exception(name)}


def drawn(room: str, name: str, depth: int = 0) -> list[str]:
    """A class and those below it as a list of lists, in alphabetical order."""
    below = sorted(other for other in public_exceptions(room) if ALL[other][0] == name)
    return [f"{'  ' * depth}* {name}", *(line for other in below for line in drawn(room, other, depth + 1))]


@pytest.mark.parametrize("room", BASES)
def test_every_public_exception_is_of_its_rooms_family(room: str) -> None:
    strays = {name for name in public_exceptions(room) if BASES[room] not in {name, *ancestors(name)}}
    assert not strays


@pytest.mark.parametrize("room", BASES)
def test_the_rooms_errors_draw_their_tree(room: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / room / "errors.py").read_text())) or ""
    tree = [line for line in docstring.splitlines() if line.lstrip().startswith("* ")]
    assert tree == drawn(room, BASES[room])
