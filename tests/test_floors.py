"""The floors of the house: a room imports only rooms below it, and what must start fast stays free of torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "chain": set(),
    "ipfs": set(),
    "worker": {"chain", "ipfs"},
    "api": {"chain", "ipfs", "worker"},
    "declai": {"chain", "ipfs", "worker", "api"},
}
# The gateway sees of the contributor's side what both ends of a link must agree on, and nothing that computes.
WORKER_MODULES_OF_THE_GATEWAY = {
    "worker.broker",
    "worker.commitments",
    "worker.errors",
    "worker.grammar",
    "worker.jobs",
    "worker.links.keys",
    "worker.links.faces",
    "worker.receipts",
    "worker.links.seals",
    "worker.text",
    "worker.links.wire",
}


def imported_modules(path: Path) -> set[str]:
    """Every absolute module name that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def files_of(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    files = files_of(room)
    assert files
    forbidden = set(MAY_IMPORT) - MAY_IMPORT[room] - {room}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in sorted(imported_modules(path))
        if name.split(".")[0] in forbidden
    ]
    assert not wrong


def test_the_gateway_uses_only_the_shared_part_of_the_worker() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files_of("api")
        for name in sorted(imported_modules(path))
        if name.split(".")[0] == "worker" and name not in WORKER_MODULES_OF_THE_GATEWAY
    ]
    assert not wrong


@pytest.mark.parametrize("module", ["api.app", "declai", "declai.cli", *sorted(WORKER_MODULES_OF_THE_GATEWAY)])
def test_what_must_start_fast_does_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0
