"""The compiled contracts in the package are those of the sources, and hold all that Python asks of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from declai.chain.artifacts import CONTRACTS, FOLDER, artifact
from declai.chain.compile import compile_contracts, write_package_data


def errors(names: set[str]) -> set[str]:
    compiled = compile_contracts()
    return {entry["name"] for name in names for entry in compiled[name].abi if entry["type"] == "error"}


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_package_holds_what_the_compiler_makes(name: str) -> None:
    assert artifact(name) == compile_contracts()[name], "refresh them: python -m declai.chain.compile"


def test_the_errors_of_every_contract_are_known() -> None:
    assert errors(set(CONTRACTS)) == errors(set(compile_contracts()))


def test_a_refresh_writes_what_is_committed_and_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "Gone.json").write_text("{}")
    write_package_data(compile_contracts(), tmp_path)
    written = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert {name: text for name, (text, _) in written.items()} == {p.name: p.read_bytes() for p in FOLDER.iterdir()}
    write_package_data(compile_contracts(), tmp_path)
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == written
