"""Dockerfiles as lists of instructions: enough of the format to look at ours, and to run what they run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from tests.support.source_tree import ROOT


@dataclass(frozen=True)
class Instruction:
    """One instruction; continued lines are joined, comments are left out."""

    word: str
    text: str

    @property
    def exec_form(self) -> list[str]:
        """The words of a command in exec form, with or without options before it."""
        words: list[str] = json.loads(self.text[self.text.index("[") :])
        return words


@dataclass(frozen=True)
class Stage:
    """What begins with a FROM."""

    base: str
    name: str | None
    instructions: list[Instruction]

    def all(self, word: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.word == word]

    def one(self, word: str) -> Instruction:
        (found,) = self.all(word)
        return found


def stages_of(program: str) -> list[Stage]:
    """The stages of a program's Dockerfile, in order."""
    text = (ROOT / "deploy" / f"{program}.Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    stages: list[Stage] = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        word, _, text = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = text.partition(" AS ")
            stages.append(Stage(base, name or None, []))
        else:
            stages[-1].instructions.append(Instruction(word, text.strip()))
    return stages
