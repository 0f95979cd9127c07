"""What documents name is there: files and folders, other pages and their headings, reasons of dependencies."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, PLANNED, ROOT, code_spans, name_of, table, without_blocks

TOP = {path.name for path in ROOT.iterdir()} - {"build"}
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


@every_document
def test_every_file_named_is_there_and_those_planned_are_not(path: Path) -> None:
    text = without_blocks(path.read_text())
    named = re.findall(rf"`([\w./-]+/[\w./-]*)`((?:{re.escape(PLANNED)})?)", text)
    assert not [name for name, planned in named if name.split("/")[0] in TOP if (ROOT / name).exists() == bool(planned)]


@every_document
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        file, _, heading = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        assert page.exists(), target
        assert not heading or heading in anchors(page), target


def anchors(page: Path) -> set[str]:
    """The names of a page's headings in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(page.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
            waiting += [(page.parent / target).resolve() for target in targets if not target.startswith("https://")]
    assert not [name_of(page) for page in DOCUMENTS if page not in reached]


def test_every_dependency_has_its_reason_beside_the_parts_that_need_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {("all", name) for name in names_of(project["dependencies"])}
    needed |= {(part, name) for part, extra in project["optional-dependencies"].items() for name in names_of(extra)}
    rows = table(ROOT / "README.md", "package")
    named = {(part, name) for names, parts, _ in rows for part in parts.split(", ") for name in code_spans(names)}
    assert needed == {(part, name) for part, name in named if part in {"all", *project["optional-dependencies"]}}
    npm = json.loads((ROOT / "package.json").read_text())["devDependencies"].keys()
    assert npm <= {name for _, name in named}


def names_of(requirements: list[str]) -> list[str]:
    """Without versions, and without parts of this package that another part has in it."""
    names = [re.split(r"[<>=~ ;]", requirement)[0] for requirement in requirements]
    return [name for name in names if not name.startswith("declai[")]


def test_nothing_is_left_to_do() -> None:
    assert not [name_of(path) for path in DOCUMENTS if re.search("TODO|FIXME|XXX", path.read_text())]
