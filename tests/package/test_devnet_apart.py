"""The devnet is for trying things out: what runs in earnest does not load it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.source_tree import ROOT, files_of, imported_modules

# What a gateway's start has loaded when it starts its first process.
START = """
import sys
import declai.cli.gateway
from declai.cli import main

def spawn(*arguments, **options):
    sys.exit("\\n".join(name for name in sys.modules if name.startswith("declai.")))

declai.cli.gateway.spawn = spawn
main(["gateway", "start"])
"""


def test_only_its_command_and_the_demo_import_the_devnet() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in files_of("declai")
        if path.parent.name != "devnet"
        if any(name.startswith("declai.devnet") for name in imported_modules(path))
    }
    assert users == {"declai/cli/devnet.py", "declai/demo.py"}


def test_a_gateways_start_does_not_load_the_devnet(tmp_path: Path) -> None:
    env = {**os.environ, "DECLAI_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run([sys.executable, "-c", START], cwd=tmp_path, env=env, capture_output=True, text=True)
    loaded = done.stderr.splitlines()
    assert "declai.children" in loaded, done.stderr
    assert not [name for name in loaded if name.startswith("declai.devnet")]
