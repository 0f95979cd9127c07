"""The compiler for tools that name sources alone: what these import is read from below the working directory only."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from declai.chain.compile import ROOT
from tests.support.toolchain import environment

HEADER = "// SPDX-License-Identifier: Apache-2.0\npragma solidity 0.8.37;\n"


def errors_of_importing(path: str, folder: Path) -> list[Any]:
    source = {
        "language": "Solidity",
        "sources": {"A.sol": {"content": f'{HEADER}import {{B}} from "{path}"; contract A is B {{}}'}},
        "settings": {"outputSelection": {"*": {"*": ["abi"]}}},
    }
    done = subprocess.run(
        [str(ROOT / "contracts" / "bin" / "solc"), "--standard-json"],
        cwd=folder,
        env=environment(),
        input=json.dumps(source),
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return list(json.loads(done.stdout).get("errors", []))


def test_an_import_is_read_from_below_the_working_directory_alone(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "lib").mkdir(parents=True)
    for place in (inside / "lib", tmp_path):
        (place / "B.sol").write_text(f"{HEADER}contract B {{}}")
    assert not errors_of_importing("lib/B.sol", inside)
    for path in (str(tmp_path / "B.sol"), "lib/../../B.sol", "lib/Missing.sol"):
        assert errors_of_importing(path, inside)
