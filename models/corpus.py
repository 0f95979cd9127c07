"""The demo model's knowledge: what every Python installation says about Python, as entries that can be asked for.

Three sources: the language reference that `help()` shows (`pydoc_data.topics`), the docstrings of the standard
library, read with `ast` so that nothing of it is imported, and the Zen of Python. All are under the PSF licence.
"""

from __future__ import annotations

import ast
import codecs
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

from models.prose import answer, clean, paragraphs

MIN_DOCSTRING_CHARS = 120
SKIPPED_FOLDERS = {
    *("test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"),
    *("turtledemo", "idlelib", "ensurepip", "distutils", "tkinter", "msilib", "lib-dynload"),
}
TERMS = (
    *("decorator", "generator", "iterator", "iterable", "comprehension", "closure", "namespace", "scope", "package"),
    *("descriptor", "metaclass", "coroutine", "docstring", "argument", "parameter", "method", "instance", "attribute"),
    *("expression", "variable", "inheritance", "keyword", "annotation", "context manager", "f-string", "tuple"),
    *("exception handler", "garbage collection", "block", "module", "base class", "hash", "boolean", "operator"),
)


@dataclass(frozen=True)
class Entry:
    """Something that can be asked for by any of `names`, and the `answer`, of at most MAX_ANSWER_CHARS characters."""

    names: tuple[str, ...]
    answer: str


def language_entries() -> list[Entry]:
    """Topics and terms of the language; what two could be called is the name of the first alone."""
    headings = topic_entries()
    owner = {name.lower(): entry for entry in reversed([*headings, *term_entries()]) for name in reversed(entry.names)}
    owner |= {entry.names[0].lower(): entry for entry in reversed(headings)}
    entries = [*headings, *term_entries(), zen_entry()]
    kept = [Entry(tuple(n for n in e.names if owner.get(n.lower(), e) == e), e.answer) for e in entries]
    return [entry for entry in kept if entry.names]


def topic_entries() -> list[Entry]:
    """One entry a section of the language reference; a section that several topics repeat comes once."""
    found: dict[str, Entry] = {}
    for key, text in sorted(topics.items(), key=lambda item: len(item[1])):
        for place, (heading, prose) in enumerate(sections(text)):
            subject = re.sub(r"^(the|a|an) ", "", heading, flags=re.I)
            known = found.get(subject.lower())
            names = {subject, *(known.names if known else ())}
            if place == 0 and not re.match("types|bltin", key):
                names.add(key.replace("-", " "))
            reply = known.answer if known else answer(prose)
            if len(reply) > 80:
                found[subject.lower()] = Entry((subject, *sorted(names - {subject})), reply)
    return list(found.values())


def term_entries() -> list[Entry]:
    """For each of TERMS the paragraph of the reference that speaks most of it."""
    prose = sorted({p for text in topics.values() for p in paragraphs(text) if len(p) > 150})
    best = {term: max(prose, key=lambda p, term=term: _relevance(term, p)) for term in TERMS}  # type: ignore[misc]
    return [Entry((term,), answer([text])) for term, text in best.items() if _relevance(term, text) > 1]


def docstring_entries() -> list[Entry]:
    """Public modules, classes and functions of the standard library whose docstring says more than a line."""
    found = []
    for name, text in docstrings():
        reply = answer(paragraphs(text))
        is_module = "." not in name
        if len(reply) >= (40 if is_module else MIN_DOCSTRING_CHARS):
            short = ".".join(name.split(".")[-2:])
            exported = f"{name.split('.')[0]}.{name.split('.')[-1]}"
            names = (name, f"{name} module", f"module {name}") if is_module else (name, short, exported)
            found.append(Entry(tuple(dict.fromkeys(names)), reply))
    return found


def zen_entry() -> Entry:
    """The Zen of Python, from the source of the module `this`."""
    source = (Path(sysconfig.get_path("stdlib")) / "this.py").read_text(encoding="utf-8")
    poem = codecs.decode(ast.literal_eval(ast.parse(source).body[0].value), "rot13")  # type: ignore[attr-defined]
    lines = poem.split("\n")[2:]
    return Entry(("Zen of Python", "zen", "philosophy of Python"), " ".join(lines[:14]).strip())


def plain_texts() -> list[str]:
    """All prose of the language reference, a section at a time, for completion without a question."""
    texts = {" ".join(prose) for text in topics.values() for _, prose in sections(text)}
    return sorted(text for text in texts if len(text) > 200)


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """(heading, prose paragraphs) of a topic's sections; a heading is a line that the next one underlines."""
    pieces = re.split(r"(?m)^([^\n]{3,70})\n[*=\-~^]{3,}\n", text)
    for heading, body in zip(pieces[1::2], pieces[2::2], strict=True):
        prose = paragraphs(body)
        if prose:
            yield clean(heading).replace('"', ""), prose


def docstrings() -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of the standard library's public modules, classes and functions."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        is_private = any(part.startswith("_") and part != "__init__" for part in parts)
        if is_private or SKIPPED_FOLDERS.intersection(parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        yield from _docstrings_of(tree, ".".join(parts).removesuffix(".__init__"))


def _docstrings_of(node: ast.Module | ast.ClassDef | ast.FunctionDef, name: str) -> Iterator[tuple[str, str]]:
    text = ast.get_docstring(node)
    if text:
        yield name, text
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield from _docstrings_of(child, f"{name}.{child.name}")


def _relevance(term: str, paragraph: str) -> float:
    """How much a paragraph speaks of a term: how often, how early, and whether it says what the term is."""
    places = [match.start() for match in re.finditer(rf"\b{re.escape(term)}", paragraph, re.I)]
    if not places:
        return -100.0
    defines = re.match(rf"(an? |the )?\"?{re.escape(term)}(s|es)?\"? (is|are|allow|can|may)\b", paragraph, re.I)
    return 3.0 * bool(defines) + len(places) / (len(paragraph) / 300 + 1) - places[0] / 100
