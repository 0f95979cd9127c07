"""The wheel as somebody gets it: what is built, and an environment that it is installed in."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


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

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python in a folder, the environment's own unless given."""
        env = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        env["DECLAI_HOME"] = str(self.folder / "home")
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd or self.folder, env=env, capture_output=True, text=True, timeout=600)

    def ok(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Standard output of a run that must succeed."""
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout
