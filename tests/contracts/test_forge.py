"""The contracts' own tests: unit, fuzz and invariant, by Forge."""

from __future__ import annotations

import re

import pytest

from tests.contracts.toolchain import FORGE, run_tool

# What moves money or measures gas; these run against the code that is deployed, too.
SHIPPED = "contracts/test/{ledger/{Gas,Settle,DirectClaim},court/Dispute}.t.sol"


def num_passed(*arguments: str, profile: str = "default") -> int:
    """Tests that passed; fails when any did not."""
    output = run_tool(FORGE, "test", "--offline", *arguments, timeout_s=2400, FOUNDRY_PROFILE=profile)
    summary = re.search(r"(\d+) tests passed, 0 failed, 0 skipped", output)
    assert summary is not None, output
    return int(summary[1])


@pytest.mark.timeout(2500)
def test_the_forge_suite_passes() -> None:
    assert num_passed(profile="ci") > 300


@pytest.mark.timeout(2500)
def test_the_deployed_code_passes() -> None:
    assert num_passed("--match-path", SHIPPED, profile="shipped") > 80


def test_a_failing_forge_is_noticed() -> None:
    with pytest.raises(AssertionError, match="forge test"):
        run_tool(FORGE, "test", "--offline", "--no-such-flag")
