"""A light parent for a node: starts it again when it dies abnormally, and takes it along when it dies itself."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
FIRST_BACKOFF_S = 1.0
LAST_BACKOFF_S = 30.0
STABLE_AFTER_S = 60.0
# Exit codes after which another start would end the same way: done, and wrong settings.
FINAL_CODES = (0, 2)


def supervise(command: Sequence[str]) -> int:
    """Run `command` until it ends for good or this process gets SIGTERM or SIGINT (passed on to it). Returns its code.

    To be called from the main thread of a process that has no other: the child is tied to the thread that forks it.
    """
    supervisor = _Supervisor(command)
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, supervisor.stop)
    return supervisor.run()


class _Supervisor:
    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)

    def run(self) -> int:
        backoff_s = FIRST_BACKOFF_S
        while True:
            started = time.monotonic()
            self._child = subprocess.Popen(self._command, preexec_fn=_die_with(os.getpid()), start_new_session=True)
            if self._stopping:
                self._child.send_signal(signal.SIGTERM)
            code = self._child.wait()
            if self._stopping or code in FINAL_CODES:
                return max(code, 0)
            if time.monotonic() - started > STABLE_AFTER_S:
                backoff_s = FIRST_BACKOFF_S
            log.error("the node ended with code %d; it starts again in %.0f s", code, backoff_s)
            self._wait(backoff_s)
            if self._stopping:
                return 0
            backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < deadline:
            time.sleep(0.05)


def _die_with(parent: int) -> Callable[[], None]:
    """What the child does before it becomes the node: ask the kernel (Linux) to be killed with its parent."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def prepare() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the kernel was asked
                os._exit(1)

    return prepare
