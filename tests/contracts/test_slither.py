"""Slither's findings and their reasons match, and the check fails where they do not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from declai.chain.compile import ROOT
from tests.support.toolchain import environment, run_tool

REASON = '[[finding]]\ndetector = "arbitrary-send-eth"\nplaces = ["A.pay"]\nreason = "a test"\n'
PAYS_ANYBODY = "function pay(address to) external { if (to != address(0)) payable(to).transfer(1); }"

AUDIT_VENV = ROOT / ".venv-audit"


@pytest.fixture(scope="module", autouse=True)
def of_the_contracts() -> str:
    # Slither keeps what it keeps where VIRTUAL_ENV says, else in the home directory.
    script = str(ROOT / "contracts" / "audit" / "check.py")
    return run_tool(AUDIT_VENV / "bin" / "python", script, VIRTUAL_ENV=str(AUDIT_VENV))


def test_every_finding_has_its_reason(of_the_contracts: str) -> None:
    assert "findings of Slither, each with its reason" in of_the_contracts


def check(project: Path, body: str, reasons: str) -> subprocess.CompletedProcess[str]:
    """The check on a checkout of its own with one small contract."""
    source = project / "contracts" / "src" / "A.sol"
    source.parent.mkdir(parents=True)
    source.write_text(f"// SPDX-License-Identifier: Apache-2.0\npragma solidity 0.8.37;\ncontract A {{ {body} }}\n")
    (project / "contracts" / "bin").symlink_to(ROOT / "contracts" / "bin")
    (project / "node_modules").symlink_to(ROOT / "node_modules")
    shutil.copy(ROOT / "foundry.toml", project)
    shutil.copytree(ROOT / "contracts" / "audit", project / "contracts" / "audit")
    (project / "contracts" / "audit" / "findings.toml").write_text(f"[left_out]\n{reasons}")
    command = [str(AUDIT_VENV / "bin" / "python"), str(project / "contracts" / "audit" / "check.py")]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)


def test_a_finding_with_a_reason_stands(tmp_path: Path) -> None:
    done = check(tmp_path, PAYS_ANYBODY, REASON)
    assert (done.returncode, done.stdout) == (0, "1 findings of Slither, each with its reason\n")


def test_a_finding_without_a_reason_fails(tmp_path: Path) -> None:
    done = check(tmp_path, PAYS_ANYBODY, REASON.replace("A.pay", "A.send"))
    assert done.returncode == 1
    assert "no reason for arbitrary-send-eth at A.pay" in done.stderr
    assert "not found: arbitrary-send-eth at A.send" in done.stderr


def test_each_of_two_findings_in_one_place_needs_its_reason(tmp_path: Path) -> None:
    twice = (
        "function a() external { assembly { sstore(0, 1) } } function a(uint256) external { assembly { sstore(0, 2) } }"
    )
    reason = REASON.replace("arbitrary-send-eth", "assembly").replace("A.pay", "A.a")
    done = check(tmp_path, twice, reason)
    assert done.returncode == 1
    assert done.stderr.count("no reason for assembly at A.a") == 1
