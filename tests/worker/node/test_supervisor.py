"""The supervisor: starts again what dies, leaves be what ended for good, stops in order."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from declai.devnet.processes import ROOT
from tests.support.waiting import wait_until

SUPERVISOR = "import sys; from declai.worker.node.supervisor import supervise; sys.exit(supervise(sys.argv[1:]))"


def start(folder: Path, script: str) -> subprocess.Popen[bytes]:
    """A supervisor of a child that notes each start in `folder/starts` and then runs `script`."""
    noting = f"import os, sys, time\nopen({str(folder / 'starts')!r}, 'a').write('x')\n"
    command = [sys.executable, "-c", SUPERVISOR, sys.executable, "-c", noting + script]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def num_starts(folder: Path) -> int:
    path = folder / "starts"
    return len(path.read_text()) if path.exists() else 0


@pytest.mark.parametrize("code", [0, 2])
def test_a_child_that_ends_for_good_is_not_started_again(tmp_path: Path, code: int) -> None:
    supervisor = start(tmp_path, f"sys.exit({code})")
    _, log = supervisor.communicate(timeout=30)
    assert supervisor.returncode == code
    assert num_starts(tmp_path) == 1
    assert log == b""


def test_a_child_that_dies_is_started_again_until_it_ends_well(tmp_path: Path) -> None:
    script = f"n = len(open({str(tmp_path / 'starts')!r}).read())\nos.abort() if n == 1 else sys.exit(0)"
    supervisor = start(tmp_path, script)
    _, log = supervisor.communicate(timeout=30)
    assert supervisor.returncode == 0
    assert num_starts(tmp_path) == 2
    assert b"starts again" in log


def test_sigterm_reaches_the_child_and_ends_the_supervisor(tmp_path: Path) -> None:
    script = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nprint(1)\ntime.sleep(60)"
    supervisor = start(tmp_path, script)
    wait_until(lambda: num_starts(tmp_path), "the child's start")
    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate(timeout=30)
    assert supervisor.returncode == 0
    assert num_starts(tmp_path) == 1
