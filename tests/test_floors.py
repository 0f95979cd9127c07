"""The floors of the house: a room imports only rooms below it, and what must start fast stays free of torch."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.docs.documents import PLANNED, table
from tests.support.source_tree import ROOT, files_of, imported_modules

MAY_IMPORT: dict[str, set[str]] = {
    "chain": set(),
    "ipfs": set(),
    "protocol": {"chain", "ipfs"},
    "storage": {"chain"},
    "links": {"protocol"},
    "planning": {"protocol", "chain"},
    "worker": {"links", "protocol", "storage", "chain", "ipfs"},
    "api": {"planning", "links", "protocol", "storage", "chain", "ipfs"},
    "declai": {"api", "worker", "planning", "links", "protocol", "storage", "chain", "ipfs"},
}
# Rooms of pure rules: what they need of the world is handed to them.
FORBIDDEN = {
    "protocol": {
        "asyncio",
        "celery",
        "fastapi",
        "httpx",
        "redis",
        "socket",
        "starlette",
        "time",
        "torch",
        "transformers",
        "zmq",
    },
    "planning": {"asyncio", "celery", "fastapi", "httpx", "redis", "socket", "starlette", "time", "torch", "zmq"},
}


def room_of(module: str) -> str | None:
    """The room that a module belongs to; None for other people's."""
    first, _, rest = module.partition(".")
    if first != "declai":
        return None
    second = rest.split(".")[0]
    return second if second in MAY_IMPORT else "declai"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "declai" else ("declai", *parts))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    files = files_of(room)
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in sorted(imported_modules(path))
        if room_of(name) not in {None, room, *MAY_IMPORT[room]}
        if name != "declai"
    ]
    assert not wrong


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_are_imported_under_the_name_that_a_wheel_gives_them(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files_of(room)
        for name in sorted(imported_modules(path))
        if name.split(".")[0] in MAY_IMPORT.keys() - {"declai"}
    ]
    assert not wrong


@pytest.mark.parametrize("room", FORBIDDEN)
def test_pure_rooms_touch_nothing_of_the_world(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files_of(room)
        for name in sorted(imported_modules(path))
        if name.split(".")[0] in FORBIDDEN[room]
    ]
    assert not wrong


@pytest.mark.parametrize("room", FORBIDDEN)
def test_pure_rooms_are_told_what_the_chain_says(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} asks the chain"
        for path in files_of(room)
        if any(name.startswith("declai.chain.client") for name in imported_modules(path))
    ]
    assert not wrong


@pytest.mark.parametrize("room", FORBIDDEN)
def test_pure_rooms_are_told_the_time(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} asks the clock"
        for path in files_of(room)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"now", "today", "utcnow"}
        if isinstance(node.value, ast.Name) and node.value.id in {"date", "datetime"}
    ]
    assert not wrong


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_two_files_of_a_room_need_each_other(room: str) -> None:
    """Not even for types alone: who needs each other is one idea, or has a part that both need."""
    files = {module_of(path): path for path in files_of(room)}
    needs: dict[str, set[str]] = defaultdict(set)
    for module, path in files.items():
        needs[module] = {name for name in imported_modules(path) if name in files and name != module}
    assert not circles(needs)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_two_folders_of_a_room_need_each_other(room: str) -> None:
    """Folders that stand beside each other, with all that is in them."""
    files = {module_of(path): path for path in files_of(room)}
    needs: dict[str, set[str]] = defaultdict(set)
    for module, path in files.items():
        for name in imported_modules(path) & files.keys():
            here, there = sides(folder_of(module, path), folder_of(name, files[name]))
            if here and there:
                needs[here].add(there)
    assert not circles(needs)


def folder_of(module: str, path: Path) -> str:
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def sides(one: str, other: str) -> tuple[str, str]:
    """The folders around two where their ways part; empty where one lies in the other, or is it."""
    pairs = itertools.zip_longest(one.split("."), other.split("."), fillvalue="")
    depth, (here, there) = next(((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]), (0, ("", "")))
    if not here or not there:
        return "", ""
    above = one.split(".")[:depth]
    return ".".join([*above, here]), ".".join([*above, there])


def circles(needs: dict[str, set[str]]) -> list[list[str]]:
    """The first circle found from each module that is on one, as a path back to its start."""
    found, done = [], set[str]()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
            return
        if module in done:
            return
        for other in sorted(needs[module]):
            walk(other, [*path, module])
        done.add(module)

    for module in sorted(needs):
        walk(module, [])
    return found


def test_no_public_class_name_means_two_things() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for room in MAY_IMPORT:
        for path in files_of(room):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_what_tests_share_stands_in_no_test_file() -> None:
    """A file of tests, or a conftest.py, is imported by pytest alone: kits are in tests/support."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for folder in ("tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in sorted(imported_modules(path))
        if name.startswith("tests.") and any(part.startswith(("test_", "conftest")) for part in name.split("."))
    ]
    assert not wrong


FAST = ["declai", "declai.cli", "declai.api.app", "declai.planning.quotes", "declai.links.node_links"]


@pytest.mark.parametrize("module", FAST)
def test_what_must_start_fast_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


def test_the_architecture_page_says_of_each_room_what_it_uses() -> None:
    """Every room lies above all that it uses; one that is planned is not there yet."""
    rows = [cells for cells in table(ROOT / "docs" / "architecture.md", "floor") if not cells[1].endswith(PLANNED)]
    floors = {room.strip("`/"): int(floor) for floor, room, _, _ in rows}
    uses = {room.strip("`/"): set(used.split(", ")) - {"none"} for _, room, _, used in rows}
    assert uses == MAY_IMPORT | {"declai": {"all"}, "chain": {"contracts"}, "contracts": set()}
    assert not [
        (room, below) for room, used in uses.items() for below in used - {"all"} if floors[below] >= floors[room]
    ]
