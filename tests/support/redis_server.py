"""A Redis that a test may stop and start again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from declai.children import Child
from declai.devnet.processes import RedisAddress, launch_redis


@dataclass
class RedisServer:
    """A running Redis that a test may stop and start again at the same address."""

    directory: Path
    child: Child
    address: RedisAddress

    @property
    def url(self) -> str:
        return self.address.url

    @property
    def bare_url(self) -> str:
        return f"redis://127.0.0.1:{self.address.port}/0"

    def restart(self) -> None:
        self.child.popen.kill()
        self.child.popen.wait()
        self.child, _ = launch_redis(self.directory, self.address)
