"""The wheel, built from a copy of the checkout and installed into an empty environment."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.packages import Built, Installed
from tests.support.source_tree import ROOMS, ROOT

BUILD_FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


def build(kind: str, source: Path, out: Path) -> Path:
    """Run the build backend in a folder, as pip and `build` do; `kind` is sdist or wheel."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The source archive of a copy of the checkout, and the wheel of that archive. In place, a build leaves folders."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, source)
    for room in ("declai", *ROOMS):
        shutil.copytree(ROOT / room, source / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    sdist = build("sdist", source, out)
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    return Built(build("wheel", next(unpacked.iterdir()), out), sdist)


@pytest.fixture(scope="session")
def plain(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel without extras; one environment for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    installed, complete = Installed(shared / "plain"), shared / "plain.complete"
    with (shared / "plain.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            installed.install(f"{built.wheel}")
            complete.touch()
    return installed


@pytest.fixture(scope="session")
def whole(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel with what nodes and gateways need: a long download the first time."""
    installed = Installed(tmp_path_factory.mktemp("whole"))
    installed.install(f"{built.wheel}[gateway,node]")
    return installed
