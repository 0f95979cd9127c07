"""The documents, and how tests read them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "models").rglob("*.md")),
]
PLANNED = " (planned)"


def name_of(path: Path) -> str:
    """A document's path in the repository, for test ids."""
    return str(path.relative_to(ROOT))


def table(path: Path, first_heading: str) -> list[list[str]]:
    """The cells of all tables of a document whose first column has this heading, without headings."""
    rows, found = [], False
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            found = False
        elif cells[0] == first_heading:
            found = True
        elif found and set(cells[0]) - set("-:"):
            rows.append(cells)
    return rows


def fenced(path: Path, language: str) -> list[str]:
    """The texts of a document's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def code_spans(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def without_blocks(text: str) -> str:
    """A document's prose and tables: what stands outside of fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
