"""What the control groups of this process allow: the tightest bound on the way up, versions 1 and 2. Linux alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
UNBOUNDED = 2**60  # version 1 writes a huge number for no bound


def cpu_quota(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float | None:
    """Cores' worth of time, None for no bound."""
    quotas = []
    for folder in _folders(root, membership, "cpu"):
        values = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(
            folder / "cpu.cfs_period_us"
        )
        if len(values) == 2 and values[0] not in ("max", "-1"):
            quotas.append(int(values[0]) / int(values[1]))
    return min(quotas, default=None)


def memory_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes, None for no bound."""
    limits = []
    for folder in _folders(root, membership, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += [int(word) for word in _words(folder / name) if word != "max" and int(word) < UNBOUNDED]
    return min(limits, default=None)


def _folders(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """The process's own group and those above it. In a container the own one may be shown as the root."""
    for line in _lines(membership):
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = root / controller if names else root
        own = top / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))
    if not _lines(membership):
        yield root


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()
