"""Every line and every branch of the contracts is run by their own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.toolchain import FORGE, run_tool


def uncovered(report: str) -> list[str]:
    """Lines and branches of contracts/src that no test ran, from an LCOV report."""
    found, source = [], ""
    for row in report.splitlines():
        kind, _, value = row.partition(":")
        if kind == "SF":
            source = value
        elif kind in ("DA", "BRDA") and source.startswith("contracts/src") and value.rsplit(",", 1)[1] in ("0", "-"):
            found.append(f"{source}:{value}")
    return found


def test_gaps_are_found() -> None:
    report = "SF:contracts/src/A.sol\nDA:1,4\nDA:2,0\nBRDA:3,0,0,-\nSF:contracts/test/A.t.sol\nDA:1,0"
    assert uncovered(report) == ["contracts/src/A.sol:2,0", "contracts/src/A.sol:3,0,0,-"]


@pytest.mark.timeout(600)
def test_every_line_and_branch_is_run(tmp_path: Path) -> None:
    report = tmp_path / "lcov.info"
    # Without the optimizer gas means nothing; invariants would add runs, not lines.
    left_out = ["--no-match-contract", "GasTest", "--no-match-path", "contracts/test/invariant/*"]
    run_tool(FORGE, "coverage", *left_out, "--report", "lcov", "--report-file", str(report), timeout_s=600)
    assert "SF:contracts/src/ledger/Settlement.sol" in report.read_text()
    assert uncovered(report.read_text()) == []
