"""The repository as a Brownie project: its own settlement passes, with the code that everything else compiles."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from declai.chain.compile import ROOT, compile_contracts
from declai.children import spawn
from tests.support.toolchain import environment, without_metadata

CONTRACTS = ["CreditToken", "NodeRegistry", "ModelRegistry", "InferenceLedger", "DisputeCourt"]
BUILD = ROOT / "build" / "brownie" / "contracts"

BROWNIE = str(ROOT / "contracts" / "bin" / "brownie")

pytestmark = pytest.mark.timeout(900)  # the first run compiles


def output_of(command: list[str], folder: Path, **env: str) -> str:
    """What the command prints; it and all that it started are gone afterwards, however it ends."""
    child = spawn(command[0], command, folder / "log", env=environment(**env), cwd=ROOT)
    try:
        status = child.popen.wait(timeout=800)
    finally:
        child.stop()
    output = child.log_path.read_text()
    assert status == 0, output
    return output


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    return output_of([BROWNIE, "test"], tmp_path_factory.mktemp("brownie"))


def test_a_settlement_balances(output: str) -> None:
    assert "Launching 'anvil" in output
    assert "3 passed" in output


def test_a_second_run_compiles_nothing_and_leaves_the_home_alone(output: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    again = output_of([BROWNIE, "test"], tmp_path, HOME=str(home))
    assert "3 passed" in again
    assert "Compiling" not in again
    assert not list(home.iterdir())


@pytest.mark.parametrize("name", CONTRACTS)
def test_brownie_deploys_the_same_code(name: str, output: str) -> None:
    built = json.loads((BUILD / f"{name}.json").read_text())
    assert without_metadata(built["deployedBytecode"]) == without_metadata(compile_contracts()[name].deployed_bytecode)


def test_brownie_compiles_with_the_settings_of_foundry(output: str) -> None:
    foundry = tomllib.loads((ROOT / "foundry.toml").read_text())["profile"]["default"]
    used = json.loads((BUILD / "InferenceLedger.json").read_text())["compiler"]
    assert used["evm_version"] == foundry["evm_version"]
    assert used["optimizer"] == {"enabled": foundry["optimizer"], "runs": foundry["optimizer_runs"]}
    assert used["version"].split("+")[0] == json.loads((ROOT / "node_modules/solc/package.json").read_text())["version"]
