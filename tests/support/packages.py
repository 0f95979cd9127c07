"""The wheel as somebody gets it: what is built, and an environment that it is installed in."""

from __future__ import annotations

import os
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.support.source_tree import ROOT


@dataclass(frozen=True)
class Built:
    """What is uploaded to an index."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel and what it depends on, away from the checkout."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def env(self) -> dict[str, str]:
        """The test's own, without what leads to the checkout, and with a home that is empty."""
        inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        return inherited | {"DECLAI_HOME": str(self.folder / "home")}

    def install(self, requirement: str) -> None:
        """Make the environment, with the versions that this checkout is tested with."""
        venv.create(self.folder, with_pip=True)
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        self.ok(*pip, "--constraint", ROOT / "requirements.lock", requirement)

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python in a folder, the environment's own unless given."""
        command = [str(self.python), *map(str, arguments)]
        where = cwd or self.folder
        return subprocess.run(command, cwd=where, env=self.env, capture_output=True, text=True, timeout=900)

    def ok(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Standard output of a run that must succeed."""
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout
