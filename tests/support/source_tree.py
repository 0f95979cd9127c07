"""The files of the house, and what each imports."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted(path.name for path in (ROOT / "declai").iterdir() if path.is_symlink())  # beside `declai` itself


def imported_modules(path: Path) -> set[str]:
    """Every absolute module name that a file imports, also inside functions; `from a import b` counts as `a.b`, too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= members
            if not all(is_module(name) for name in members):
                names.add(node.module)
    return names


def is_module(name: str) -> bool:
    """Whether a dotted name is a file or folder of ours."""
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def files_of(room: str) -> list[Path]:
    """A room's own files: the folder `declai/` also links to the other rooms, under whose names they are imported."""
    found = []
    for path in sorted((ROOT / room).rglob("*.py")):
        parents = [ROOT / room, *(ROOT / room / part for part in path.relative_to(ROOT / room).parts[:1])]
        if not any(parent.is_symlink() for parent in parents):
            found.append(path)
    return found
