"""The workflow for forks: its steps are targets of the Makefile, and its parts are all of the tests."""

from __future__ import annotations

import re
import shlex
from typing import Any

import yaml

from tests.support.source_tree import ROOT

COMMAND = re.compile(r"make ([a-z]+)(?: TESTS=(.+))?")
SUPPORT = {"__init__.py", "__pycache__", "conftest.py", "support"}


def workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    return found


def commands(job: dict[str, Any]) -> list[str]:
    """What a job runs, once for each row of its matrix."""
    rows = job.get("strategy", {}).get("matrix", {}).get("tests", [""])
    runs = [step["run"] for step in job["steps"] if "run" in step]
    return [run.replace("${{ matrix.tests }}", row) for run in runs for row in rows]


def test_every_step_is_a_target_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for job in workflow()["jobs"].values():
        assert commands(job)
        for command in commands(job):
            match = COMMAND.fullmatch(command)
            assert match is not None, command
            assert match[1] in targets


def test_the_parts_are_all_of_the_tests_and_none_twice() -> None:
    parts = [
        path.relative_to(ROOT / "tests").as_posix()
        for job in workflow()["jobs"].values()
        for command in commands(job)
        if (match := COMMAND.fullmatch(command)) and match[2]
        for word in shlex.split(match[2])
        for pattern in word.split()
        for path in ROOT.glob(pattern)
    ]
    assert sorted(parts) == sorted({path.name for path in (ROOT / "tests").iterdir()} - SUPPORT)


def test_the_workflow_may_read_and_nothing_else() -> None:
    found = workflow()
    assert found["permissions"] == {"contents": "read"}
    for job in found["jobs"].values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/none@v0"))
