"""What documents show to be typed works: console commands and Python run, other commands are understood."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from declai import cli
from declai.cli import GROUPS
from tests.docs.documents import DOCUMENTS, ROOT, fenced, name_of
from tests.docs.surface import commands
from tests.support.devnet import Running

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
# Of other programs; what follows them is theirs.
OTHERS = {".", "contracts/bin/brownie", "pip"}


@every_document
def test_every_console_command_runs(devnet: Running, path: Path) -> None:
    for block in fenced(path, "console"):
        for line in block.splitlines():
            assert line.startswith("$ declai ")
            devnet.cli.ok(*shlex.split(line.removeprefix("$ declai ")))


@every_document
def test_every_other_command_is_understood(path: Path) -> None:
    """These need a machine or a network of the reader's own, so they are read and not run."""
    for block in (*fenced(path, "sh"), *fenced(path, "bash")):
        for words in shell_commands(block):
            check(words)


def shell_commands(block: str) -> Iterator[list[str]]:
    for line in block.splitlines():
        for command in line.split("&&"):
            if words := shlex.split(command, comments=True):
                yield words


def check(words: list[str]) -> None:
    match words:
        case ["declai", *arguments]:
            parse(cli.root, arguments)
        case ["make", target]:
            assert target in make_targets()
        case ["pytest", *arguments]:
            assert all((ROOT / word).exists() for word in arguments if "/" in word), words
        case ["python", "-m", module, *_]:
            assert find_spec(module), module
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), script
        case [program, *_]:
            assert program in OTHERS, program


def parse(command: click.Command, arguments: list[str], parent: click.Context | None = None) -> None:
    """As click does it, without running anything: every word must be a command, or an option that the command has."""
    context = command.make_context(arguments[0] if arguments else "", arguments, parent, resilient_parsing=True)
    if isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, name
        parse(found, rest, context)


@every_document
def test_every_command_named_in_passing_exists(path: Path) -> None:
    known = {words for words, _ in commands(cli.root)}
    for group, command in re.findall(r"`declai ([a-z]+)(?: ([a-z-]+))?[ `]", path.read_text()):
        assert group in GROUPS
        assert not command or (group, command) in known or (group,) in known, f"{group} {command}"


def test_every_make_target_named_exists() -> None:
    named = {t for path in DOCUMENTS for t in re.findall(r"(?:^|`)make ([a-z]+)", path.read_text(), re.M)}
    assert named >= {"demo", "test"}
    assert named <= make_targets()


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))


def test_python_examples_run(devnet: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECLAI_HOME", str(devnet.cli.home))
    for path in DOCUMENTS:
        for block in fenced(path, "python"):
            code = block.replace("http://127.0.0.1:8080", devnet.network.gateway.url)
            exec(compile(code.replace("dcl_...", devnet.network.api_key or ""), str(path), "exec"), {})
