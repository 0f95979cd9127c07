"""The contracts' own tests: unit, fuzz and invariant, by Forge."""

from __future__ import annotations

import re

import pytest

from tests.support.toolchain import FORGE, run_tool

# What moves money or measures gas; these run against the code that is deployed, too.
SHIPPED = "contracts/test/{ledger/{Gas,Settle,DirectClaim},court/Dispute}.t.sol"


def num_passed(output: str) -> int:
    """Tests that passed; fails when any did not."""
    summary = re.search(r"(\d+) tests passed, 0 failed, 0 skipped", output)
    assert summary is not None, output
    return int(summary[1])


@pytest.mark.timeout(1200)
def test_the_forge_suite_passes() -> None:
    assert num_passed(run_tool(FORGE, "test", "--offline", "--threads", "1", timeout_s=1100)) > 300


@pytest.mark.timeout(1200)
def test_the_deployed_code_passes() -> None:
    arguments = ["test", "--offline", "--threads", "1", "--match-path", SHIPPED]
    output = run_tool(FORGE, *arguments, timeout_s=1100, FOUNDRY_PROFILE="shipped")
    assert num_passed(output) > 80


def test_a_failing_forge_is_noticed() -> None:
    with pytest.raises(AssertionError, match="forge test"):
        run_tool(FORGE, "test", "--offline", "--no-such-flag")
