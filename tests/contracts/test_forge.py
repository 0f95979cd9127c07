"""The contracts' own tests: unit, fuzz and invariant, by Forge."""

from __future__ import annotations

import re

import pytest

from tests.contracts.toolchain import FORGE, run_tool


def test_the_forge_suite_passes() -> None:
    output = run_tool(FORGE, "test", "--offline")
    summary = re.search(r"(\d+) tests passed, 0 failed, 0 skipped", output)
    assert summary is not None, output
    assert int(summary[1]) > 150


def test_a_failing_forge_is_noticed() -> None:
    with pytest.raises(AssertionError, match="forge test"):
        run_tool(FORGE, "test", "--offline", "--no-such-flag")
