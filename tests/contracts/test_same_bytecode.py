"""py-solc-x, Forge and Hardhat give the same code: there is one source of compiler settings, and all three read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from declai.chain.compile import ROOT, compile_contracts
from tests.support.toolchain import FORGE, HARDHAT, run_tool, without_metadata

CONTRACTS = ["CreditToken", "NodeRegistry", "ModelRegistry", "InferenceLedger", "DisputeCourt", "Jury"]


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.fixture(scope="module")
def forge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A folder of its own: `forge lint` leaves artifacts without code where `forge build` would look for its cache.
    folder = tmp_path_factory.mktemp("forge")
    places = ["--out", str(folder / "out"), "--cache-path", str(folder / "cache")]
    run_tool(FORGE, "build", "--offline", "--skip", "test", *places)
    return folder / "out"


@pytest.fixture(scope="module")
def hardhat_folder() -> Path:
    run_tool(HARDHAT, "build")
    return ROOT / "build" / "hardhat" / "artifacts" / "contracts" / "src"


@pytest.mark.parametrize("name", CONTRACTS)
def test_forge_agrees(name: str, forge_folder: Path) -> None:
    own = compile_contracts()[name]
    theirs = read(forge_folder / f"{name}.sol" / f"{name}.json")
    assert without_metadata(theirs["deployedBytecode"]["object"]) == without_metadata(own.deployed_bytecode)
    assert without_metadata(theirs["bytecode"]["object"]) == without_metadata(own.bytecode)


@pytest.mark.parametrize("name", CONTRACTS)
def test_hardhat_agrees(name: str, hardhat_folder: Path) -> None:
    own = compile_contracts()[name]
    theirs = read(hardhat_folder / f"{name}.sol" / f"{name}.json")
    assert without_metadata(theirs["deployedBytecode"]) == without_metadata(own.deployed_bytecode)
    assert without_metadata(theirs["bytecode"]) == without_metadata(own.bytecode)
