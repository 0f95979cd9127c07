"""What this process holds open: files, sockets, threads, child processes."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import psutil

LEAVE_S = 5.0


def held_open() -> Counter[str]:
    """How many of each kind; files by their path, sockets by the port that they lead to."""
    gc.collect()
    process, found = psutil.Process(), Counter[str]()
    ports = {link.fd: link.raddr.port for link in process.net_connections("inet") if link.raddr}
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            target = os.readlink(f"/proc/self/fd/{descriptor}").partition(":[")[0]
            found[f"socket to {ports[int(descriptor)]}" if int(descriptor) in ports else target] += 1
    found.update(f"thread {thread.name}" for thread in threading.enumerate())
    found.update(f"process {child.pid}" for child in process.children(recursive=True))
    return found


@contextmanager
def leaving_nothing_open(rpc_url: str) -> Iterator[None]:
    """Hold what is open after the block against what was before; what ends by itself has a moment for it.

    Connections to the chain do not count: web3 keeps one for each thread that ever asked.
    """
    before, chain = held_open(), f"socket to {urlsplit(rpc_url).port}"
    yield
    deadline = time.monotonic() + LEAVE_S
    while (more := (held_open() - before).keys() - {chain}) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not more, f"still open: {sorted(more)}"
