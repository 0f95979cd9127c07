"""The glossary has each term once, and no term that nobody uses."""

from __future__ import annotations

import re

from tests.docs.documents import DOCUMENTS, PLANNED, ROOT, table

PAGE = ROOT / "docs" / "glossary.md"
SOURCES = ("api", "chain", "contracts/src", "ipfs", "links", "planning", "protocol", "storage", "worker")


def terms() -> list[str]:
    return [cells[0] for cells in table(PAGE, "term")]


def test_no_term_is_explained_twice() -> None:
    known = [term.removesuffix(PLANNED).lower() for term in terms()]
    assert len(known) == len(set(known))


def test_every_explanation_is_one_sentence_or_a_few() -> None:
    assert not [cells[0] for cells in table(PAGE, "term") if not 1 <= cells[1].count(". ") + 1 <= 3]
    assert not [cells[0] for cells in table(PAGE, "term") if cells[1][-1] not in ".)"]


def test_every_term_is_used() -> None:
    files = [path for room in SOURCES for kind in ("*.py", "*.sol") for path in (ROOT / room).rglob(kind)]
    text = "\n".join(path.read_text() for path in (*files, *DOCUMENTS) if path != PAGE)
    unused = [term for term in terms() if not term.endswith(PLANNED) and not is_used(term, text)]
    assert not unused


def is_used(term: str, text: str) -> bool:
    """As words, or as a name in code: `link key`, `link_key`, `LinkKey`."""
    return re.search(r"[\s_-]?".join(map(re.escape, term.split())), text, re.I) is not None
