"""The mutants of the contracts: what is found, and that each is active under its own coinbase alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import solcx

from declai.chain.compile import ROOT
from tests.support.toolchain import environment

SOURCE = """// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

contract A {
    error NotSelf();

    uint256 internal sum;

    modifier onlySelf() {
        if (msg.sender != address(this)) revert NotSelf();
        _;
    }

    function add(uint256 amount) external onlySelf {
        if (amount > 10 && sum != 0) sum += amount * 2;
    }

    function word() external view returns (uint256 it) {
        assembly {
            it := add(sload(0), 7)
        }
    }
}
"""
EXPECTED = [
    "A.onlySelf: msg.sender != address(this) -> false",
    "A.onlySelf: msg.sender != address(this) -> true",
    "A.onlySelf: msg.sender -> tx.origin",
    "A.add: onlySelf -> nothing",
    "A.add: amount > 10 && sum != 0 -> (amount > 10)",
    "A.add: amount > 10 && sum != 0 -> (sum != 0)",
    "A.add: amount > 10 && sum != 0 -> false",
    "A.add: amount > 10 && sum != 0 -> true",
    "A.add: amount > 10 -> (amount) != (10)",
    "A.add: amount > 10 -> (amount) >= (10)",
    "A.add: amount > 10 -> false",
    "A.add: sum != 0 -> false",
    "A.add: sum != 0 -> true",
    "A.add: sum += amount * 2; -> nothing",
    "A.add: sum += amount * 2; -> sum -= amount * 2;",
    "A.add: amount * 2 -> (amount) / (2)",
    "A.word: 0 -> add(0, 1)",
    "A.word: 7 -> add(7, 1)",
]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The scripts of contracts/audit stand beside each other and are no package."""
    monkeypatch.syspath_prepend(ROOT / "contracts" / "audit")
    monkeypatch.setenv("PATH", environment()["PATH"])
    import mutants

    yield mutants
    del sys.modules["mutants"]


def compiled(text: str, output: str) -> dict[str, Any]:
    task = {
        "language": "Solidity",
        "sources": {"A.sol": {"content": text}},
        "settings": {"outputSelection": {"*": {"": ["ast"], "*": [output]}}},
    }
    return solcx.compile_standard(task, solc_binary=Path(ROOT / "contracts" / "bin" / "solc"))


def found_in(module: Any) -> list[Any]:
    return module.Finder("A.sol", SOURCE.encode()).find(compiled(SOURCE, "abi")["sources"]["A.sol"]["ast"])


def test_each_small_mistake_is_found_once(module: Any) -> None:
    assert [mutant.name for mutant in found_in(module)] == EXPECTED


def test_all_switched_mutants_compile_together(module: Any) -> None:
    numbered = [
        (number, mutant) for number, mutant in enumerate(found_in(module), start=1) if mutant.kind != "modifier"
    ]
    text = module.with_switches(SOURCE.encode(), numbered).decode()
    assert all(text.count(f"address({number})") + text.count(f"coinbase(), {number})") == 1 for number, _ in numbered)
    assert compiled(text, "evm.bytecode.object")["contracts"]["A.sol"]["A"]["evm"]["bytecode"]["object"]


def test_without_mutants_the_source_stays_as_it_is(module: Any) -> None:
    assert module.with_switches(SOURCE.encode(), []) == SOURCE.encode()
