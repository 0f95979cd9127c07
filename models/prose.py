"""Turn documentation in reStructuredText into short answers of plain English sentences."""

from __future__ import annotations

import re
from itertools import pairwise

MAX_ANSWER_CHARS = 620

_TYPOGRAPHY = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "—": "-", "–": "-", "…": "..."})
_CODE_LINE = re.compile(r"\s{3,}|>>>|\.\. |[|+=*\-~^]{3,}|\s*[:@]\w+.*:")
_EDITORIAL = re.compile(r"(Changed|New|Added|Deprecated) in version|See also|XXX|TODO|Copyright|Author|[*] \*PEP")
_SENTENCE_END = re.compile(r"(?<=[.!?:])[\"')]*\s+(?=[A-Z\"'(])")


def clean(text: str) -> str:
    """Prose on one line, without the marks of reStructuredText."""
    text = re.sub(r"(\w)-\n\s*", r"\1-", text)
    text = re.sub(r":[a-z:]+:`~?([^`]*)`", r"\1", text)
    text = re.sub(r"``?([^`]*)``?", r"\1", text)
    text = re.sub(r"\*{1,2}([^*\s][^*]*)\*{1,2}", r"\1", text)
    text = re.sub(r"\s*\[\d\]|(?m:^[*-] )", "", text)
    text = re.sub(r"\s+", " ", text.translate(_TYPOGRAPHY)).strip()
    return re.sub(r"^(Note|Warning|CPython implementation detail):\s*", "", text)


def paragraphs(text: str) -> list[str]:
    """The prose paragraphs of a text: no code, grammar, tables, headings, signatures or release notes."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        if "::=" in block or any(_CODE_LINE.match(line) for line in block.strip("\n").splitlines()):
            continue
        prose = clean(block)
        is_sentence = re.match(r"[A-Z\"]", prose) and re.search(r"[.:!][\")]*$", prose) and prose.count(" ") >= 5
        if is_sentence and not _EDITORIAL.match(prose):
            found.append(prose)
    return found


def sentences(text: str) -> list[str]:
    """Whole sentences. One that announced an example or a table, which is gone, ends in a full stop or goes too."""
    found = []
    for sentence in _split(text):
        if sentence.endswith(":"):
            if re.search(r"follow|example|syntax|grammar|equivalent|detail:", sentence, re.I):
                continue
            sentence = sentence.rstrip(":") + "."
        found.append(sentence)
    return found


def answer(parts: list[str]) -> str:
    """As many whole sentences from the start of `parts` as an answer may hold; empty when there is none."""
    text = ""
    for sentence in sentences(" ".join(parts)):
        if len(text) + len(sentence) > MAX_ANSWER_CHARS:
            break
        text = f"{text} {sentence}".strip()
    return text


def _split(text: str) -> list[str]:
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    return [text[start:end].strip() for start, end in pairwise(starts) if text[start:end].strip()]
