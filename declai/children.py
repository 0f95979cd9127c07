"""Child processes of a program: start one, wait until it is ready, stop it; none outlives its parent.

Every child writes to a log file of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from declai.errors import DeclaiError

PR_SET_PDEATHSIG = 1


class ProcessError(DeclaiError):
    """A child process is missing, ended early or did not become ready; the text holds the end of its log."""


@dataclass
class Child:
    """One running child and where its output goes."""

    name: str
    popen: subprocess.Popen[bytes]
    log_path: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def log_tail(self, num_lines: int = 15) -> str:
        """The last lines of the child's log, for error messages."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-num_lines:])

    def stop(self, timeout_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL after `timeout_s`, to it and to what it left behind. A second call does nothing."""
        if self.alive:
            self.popen.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # each child leads a session, and so a group, of its own
        self.popen.wait()

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Poll `ready` until it holds; raises ProcessError when the child ends or the time is up."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive:
                raise ProcessError(f"{self.name} ended with code {self.popen.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} was not ready after {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(0.02)


def _die_with_parent() -> None:
    """Linux: the kernel kills this process when its parent is gone, however the parent ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(
    name: str,
    command: Sequence[str],
    log_path: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Child:
    """Start `command` in a session of its own (Ctrl-C reaches the parent alone, which then stops it in order)."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        popen = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(os.environ if env is None else env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    return Child(name, popen, log_path)
