"""The wheel, built from a copy of the checkout and installed into an empty environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv

import pytest

from tests.support.packages import Built, Installed
from tests.support.source_tree import ROOMS, ROOT

BUILD = "import sys; from setuptools import build_meta as b; to = sys.argv[1]; b.build_sdist(to); b.build_wheel(to)"
BUILD_FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """From a copy: a build leaves folders beside the sources, and takes in what it finds there."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, source)
    for room in ("declai", *ROOMS):
        shutil.copytree(ROOT / room, source / room, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, out], cwd=source, check=True, capture_output=True, timeout=300)
    return Built(next(out.glob("*.whl")), next(out.glob("*.tar.gz")))


@pytest.fixture(scope="session")
def plain(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel without extras."""
    installed = Installed(tmp_path_factory.mktemp("plain"))
    venv.create(installed.folder, with_pip=True)
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    installed.ok(*pip, "-c", ROOT / "requirements.lock", built.wheel)
    return installed
