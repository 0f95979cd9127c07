"""One real devnet for all tests of what people type and import, started by the command that people type."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from declai.devnet.processes import ChainKind
from declai.network import Network, load
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
UP_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Cli:
    """Runs `declai` as a user does, with a home of its own."""

    home: Path

    @property
    def env(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "DECLAI_HOME": str(self.home), "OMP_NUM_THREADS": "1"}

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "declai", *arguments]
        return subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=180, input=stdin)

    def ok(self, *arguments: str) -> str:
        """Standard output of a command that must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"declai {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, *arguments: str, code: int = 1) -> str:
        """Standard error of a command that must fail with this exit code."""
        done = self.run(*arguments)
        assert done.returncode == code, f"declai {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stderr


@dataclass(frozen=True)
class Running:
    """The devnet, and the command line that talks to it."""

    cli: Cli
    network: Network
    process: subprocess.Popen[bytes]


@contextmanager
def running_devnet(cli: Cli, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """A devnet of `declai devnet up` with these options, ready; whatever is left of it is ended on leaving."""
    command = [sys.executable, "-m", "declai", "devnet", "up", "--dir", str(cli.home / "devnet"), *options]
    log_path = cli.home / "up.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=cli.env if env is None else env, cwd=ROOT, stdout=log, stderr=log)
    try:
        file = cli.home / "devnet" / "devnet.json"
        wait_until(lambda: file.exists() or process.poll() is not None, log_path.read_text, UP_TIMEOUT_S)
        assert process.poll() is None, log_path.read_text()
        yield Running(cli, load(file), process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def devnet(tmp_path_factory: pytest.TempPathFactory, chain_kind: ChainKind) -> Iterator[Running]:
    cli = Cli(tmp_path_factory.mktemp("home"))
    with running_devnet(cli, "--chain", chain_kind, "--settle-every", "3600") as running:
        yield running
        cli.ok("devnet", "down")
        assert running.process.wait(30) == 0
        assert not (cli.home / "devnet" / "devnet.json").exists()


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line without any network."""
    return Cli(tmp_path / "home")
