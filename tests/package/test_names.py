"""Our rooms have common names. Under `declai` they neither hide a user's package of that name nor are hidden by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.packages import Installed
from tests.support.source_tree import ROOMS, ROOT

PROGRAM = f"""
import importlib, json, sys
if sys.argv[1] == "client first":
    from declai import AsyncClient, Client
mine = {{name: importlib.import_module(name).OWNER for name in {ROOMS}}}
from declai import AsyncClient, Client
ours = {{name: importlib.import_module(f"declai.{{name}}").__file__ for name in {ROOMS}}}
print(json.dumps([mine, ours]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with packages that are called like our rooms."""
    for name in ROOMS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("OWNER = 'the user'\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def check(answer: str, home: Path) -> None:
    mine, ours = json.loads(answer)
    assert mine == dict.fromkeys(ROOMS, "the user")
    assert {name: Path(file) for name, file in ours.items()} == {
        name: home / "declai" / name / "__init__.py" for name in ROOMS
    }


@pytest.mark.parametrize("order", ["client first", "own packages first"])
def test_beside_the_installed_wheel(order: str, project: Path, plain: Installed) -> None:
    site = next((plain.folder / "lib").glob("python*/site-packages"))
    check(plain.ok("program.py", order, cwd=project), site)


@pytest.mark.parametrize("order", ["client first", "own packages first"])
def test_beside_a_checkout(order: str, project: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "program.py", order]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    check(done.stdout, ROOT)
