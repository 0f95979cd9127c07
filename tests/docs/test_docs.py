"""The documents tell the truth: commands run, links lead somewhere, every dependency has its reason."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import declai.api.http.errors  # noqa: F401 - defines errors of its own
from declai import cli
from declai.api.errors import GatewayError
from declai.cli import GROUPS
from tests.support.devnet import ROOT, Running

DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def console_commands(path: Path) -> list[list[str]]:
    blocks = re.findall(r"^```console\n(.*?)^```", path.read_text(), re.M | re.S)
    return [shlex.split(line[2:]) for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_runs(devnet: Running, path: Path) -> None:
    for command in console_commands(path):
        assert command[0] == "declai"
        devnet.cli.ok(*command[1:])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_named_in_passing_exists(devnet: Running, path: Path) -> None:
    named = set(re.findall(r"`declai ([a-z]+)(?: ([a-z-]+))?[ `]", path.read_text()))
    for group, command in named:
        assert group in GROUPS
        if command and group != "chat":
            assert "Usage" in devnet.cli.ok(group, command, "--help")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {t for path in DOCUMENTS for t in re.findall(r"(?:^|`)make ([a-z]+)", path.read_text(), re.M)}
    assert named >= {"demo", "test"}
    assert not [target for target in named if not re.search(rf"^{target}:", makefile, re.M)]


def test_every_dependency_has_its_reason() -> None:
    readme = (ROOT / "README.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = [re.split(r"[<>=~]", requirement)[0] for requirement in python]
    names += json.loads((ROOT / "package.json").read_text())["devDependencies"]
    assert not [name for name in names if f"`{name}`" not in readme]


def test_every_command_is_documented() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert not [command for command in commands(cli.root) if f"declai {command}" not in text]


def commands(group: click.Group, *prefix: str) -> Iterator[str]:
    """Every command below a group, as `group command`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, *prefix, name)
        else:
            yield " ".join([*prefix, name])


def test_every_error_code_is_documented() -> None:
    importlib.import_module("declai.api.app")  # with all its modules, and so all its errors
    text = (ROOT / "docs" / "http.md").read_text()
    assert not [error.code for error in errors_below(GatewayError) if error.code and f"`{error.code}`" not in text]


def errors_below(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for below in kind.__subclasses__():
        yield below
        yield from errors_below(below)


def test_nothing_is_left_to_do() -> None:
    assert not [path.name for path in DOCUMENTS if re.search("TODO|FIXME|XXX", path.read_text())]


def test_python_examples_run(devnet: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECLAI_HOME", str(devnet.cli.home))
    for path in DOCUMENTS:
        for block in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S):
            code = block.replace("http://127.0.0.1:8080", devnet.network.gateway.url)
            exec(compile(code.replace("dcl_...", devnet.network.api_key or ""), str(path), "exec"), {})
