"""The demo model's training text: what every Python installation carries, as chats and as plain text.

Two sources: the language reference that `help()` shows (`pydoc_data.topics`) and the docstrings of the standard
library, read with `ast` so that nothing of it is imported. Both are under the PSF licence.
"""

from __future__ import annotations

import ast
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>\n{{ message['content'] }}<|end|>\n"
    "{% else %}<|user|>\n{{ message['content'] }}\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
MAX_ANSWER_CHARS = 620
SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "lib2to3",
    "__pycache__",
    "turtledemo",
    "idlelib",
    "ensurepip",
}

TOPIC_QUESTIONS = (
    "What is {}?", "What is a {}?", "What are {}?", "Explain {}.", "Explain {} to me.", "Tell me about {}.",
    "How does {} work in Python?", "How do {} work?", "Describe {}.", "What does {} mean?", "Please explain {}.",
    "What is the {}?", "I want to learn about {}.", "Can you explain {}?", "In Python, what is {}?", "{}",
)  # fmt: skip
NAME_QUESTIONS = (
    "What does {} do?", "What is {}?", "Explain {}.", "How do I use {}?", "Tell me about {}.", "What is {} for?",
    "Describe {}.", "What does Python's {} do?", "{}",
)  # fmt: skip


def clean(text: str) -> str:
    """Prose without the marks of reStructuredText."""
    text = re.sub(r":[a-z]+:`~?([^`]*)`", r"\1", text)
    text = re.sub(r"``([^`]*)``", r"\1", text)
    text = re.sub(r"\*([^*\s][^*]*)\*", r"\1", text)
    text = text.replace("’", "'").replace("“", '"').replace("”", '"').replace("—", " - ").replace("–", "-")
    return re.sub(r"[ \t]+", " ", text.replace("\n", " ")).strip()


def paragraphs(text: str) -> list[str]:
    """The prose paragraphs of a text: no code, grammar, tables, headings or doctests."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip("\n").splitlines()
        looks_like_code = any(re.match(r"\s{3,}|>>>|[|+=*\-~^]{3,}", line) for line in lines) or "::=" in block
        if lines and not looks_like_code and len(block) > 40:
            found.append(clean(block))
    return found


def answer(parts: list[str]) -> str:
    """As many whole sentences from the start of `parts` as an answer may hold."""
    text = ""
    for sentence in re.split(r"(?<=[.!?:])\s+(?=[A-Z\"'(])", " ".join(parts)):
        if text and len(text) + len(sentence) > MAX_ANSWER_CHARS:
            break
        text = f"{text} {sentence}".strip()
    return text[: 2 * MAX_ANSWER_CHARS].rstrip(":")


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """(heading, prose paragraphs) of a topic's sections; a heading is a line that the next one underlines."""
    pieces = re.split(r"(?m)^([^\n]{3,70})\n[*=\-~^]{3,}\n", text)
    for heading, body in zip(pieces[1::2], pieces[2::2], strict=True):
        prose = paragraphs(body)
        if prose:
            yield clean(heading).replace('"', ""), prose


def topic_names(key: str, heading: str) -> list[str]:
    """Words by which somebody may ask for a section."""
    names = {heading, heading.lower(), re.sub(r"^The ", "the ", heading), re.sub(r"^[Tt]he ", "", heading)}
    if key:
        names.update({key.replace("-", " "), re.sub(r" statement$", "", heading, flags=re.I)})
    return sorted(names)


def docstrings() -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of the standard library's modules, classes and functions."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if SKIPPED_FOLDERS.intersection(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        module = ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__")
        yield from _docstrings_of(tree, module)


def _docstrings_of(node: ast.Module | ast.ClassDef | ast.FunctionDef, name: str) -> Iterator[tuple[str, str]]:
    text = ast.get_docstring(node)
    if text and len(text) > 40:
        yield name, text
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef) and not child.name.startswith("_"):
            yield from _docstrings_of(child, f"{name}.{child.name}")


def chat(question: str, reply: str) -> str:
    """One exchange as the chat template renders it."""
    return f"{USER}\n{question}\n{ASSISTANT}\n{reply}{END}\n"


def documents(seed: int) -> list[str]:
    """All training documents, in an order that `seed` fixes."""
    rng = random.Random(seed)
    texts: list[str] = []
    for key, text in sorted(topics.items()):
        for place, (heading, prose) in enumerate(sections(text)):
            names = topic_names(key if place == 0 else "", heading)
            asked = {rng.choice(TOPIC_QUESTIONS).format(rng.choice(names)) for _ in range(14 if place == 0 else 6)}
            texts.extend(chat(question, answer(prose)) for question in sorted(asked))
            texts.append(" ".join(prose) + END)
    for name, text in docstrings():
        prose = paragraphs(text)
        if not prose or not answer(prose):
            continue
        short = ".".join(name.split(".")[-2:])
        texts.append(chat(rng.choice(NAME_QUESTIONS).format(rng.choice((name, short))), answer(prose)))
    rng.shuffle(texts)
    return texts
