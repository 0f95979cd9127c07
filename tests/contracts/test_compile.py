"""The Python compiler: what it returns, that it does nothing twice, and how it fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from declai.chain.compile import ROOT, CompileError, compile_contracts

EIP_170_MAX_BYTES = 24_576
CONTRACTS = {"CreditToken", "NodeRegistry", "ModelRegistry", "InferenceLedger"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout of its own with one small contract, on the compiler and the packages of this one."""
    (tmp_path / "contracts" / "src").mkdir(parents=True)
    (tmp_path / "contracts" / "bin").symlink_to(ROOT / "contracts" / "bin")
    (tmp_path / "node_modules").symlink_to(ROOT / "node_modules")
    shutil.copy(ROOT / "foundry.toml", tmp_path)
    write(tmp_path, "A", "uint256 public a;")
    return tmp_path


def write(project: Path, name: str, body: str, header: str = "") -> None:
    text = f"// SPDX-License-Identifier: Apache-2.0\npragma solidity 0.8.37;\n{header}\ncontract {name} {{ {body} }}\n"
    (project / "contracts" / "src" / f"{name}.sol").write_text(text)


def test_all_contracts_and_their_interfaces_are_there() -> None:
    compiled = compile_contracts()
    assert set(compiled) >= CONTRACTS | {f"I{name}" for name in CONTRACTS}
    for name in CONTRACTS:
        assert compiled[name].source == f"contracts/src/{name}.sol"
        assert {entry["type"] for entry in compiled[name].abi} >= {"function", "event", "error"}


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_deployed_code_is_under_the_limit_of_eip_170(name: str) -> None:
    num_bytes = len(bytes.fromhex(compile_contracts()[name].deployed_bytecode[2:]))
    assert 0 < num_bytes <= EIP_170_MAX_BYTES


def test_nothing_is_compiled_twice(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compile_contracts(project)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("solcx.compile_standard", lambda *args, **kwargs: pytest.fail("compiled again"))
    assert compile_contracts(project) == first


def test_a_changed_source_or_setting_is_compiled_anew(project: Path) -> None:
    first = compile_contracts(project)
    write(project, "A", "uint256 public b;")
    second = compile_contracts(project)
    assert second["A"].abi != first["A"].abi
    settings = (project / "foundry.toml").read_text()
    (project / "foundry.toml").write_text(settings.replace("optimizer = true", "optimizer = false"))
    assert compile_contracts(project)["A"].bytecode != second["A"].bytecode


def test_a_changed_import_is_compiled_anew(project: Path) -> None:
    write(project, "Parent", "uint256 public a;")
    write(project, "A", "", 'import {Parent} from "./Parent.sol"; contract B is Parent {}')
    before = compile_contracts(project)["B"].bytecode
    write(project, "Parent", "uint256 public a; uint256 public b;")
    assert compile_contracts(project)["B"].bytecode != before


def test_a_removed_contract_disappears(project: Path) -> None:
    write(project, "Old", "")
    assert "Old" in compile_contracts(project)
    (project / "contracts" / "src" / "Old.sol").unlink()
    assert "Old" not in compile_contracts(project)
    assert not (project / "build" / "contracts" / "Old.json").exists()


def test_a_damaged_store_is_rebuilt(project: Path) -> None:
    first = compile_contracts(project)
    (project / "build" / "contracts" / "A.json").write_text("{")
    assert compile_contracts(project) == first


def test_the_compilers_words_are_in_the_error(project: Path) -> None:
    write(project, "A", "uint256 public a = true;")
    with pytest.raises(CompileError, match=r"contracts/src/A\.sol"):
        compile_contracts(project)


def test_a_missing_import_is_named(project: Path) -> None:
    write(project, "A", "", 'import "./Missing.sol";')
    with pytest.raises(CompileError, match=r"contracts/src/Missing\.sol"):
        compile_contracts(project)


def test_missing_packages_and_settings_are_named(project: Path) -> None:
    (project / "node_modules").unlink()
    with pytest.raises(CompileError, match="npm ci"):
        compile_contracts(project)
    (project / "foundry.toml").unlink()
    with pytest.raises(CompileError, match=r"foundry\.toml"):
        compile_contracts(project)
