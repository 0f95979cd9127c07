"""The contracts' own tests: unit, fuzz and invariant, by Forge."""

from __future__ import annotations

import re

from tests.contracts.toolchain import run_tool


def test_the_forge_suite_passes() -> None:
    output = run_tool("forge", "test", "--offline")
    summary = re.search(r"(\d+) tests passed, 0 failed, 0 skipped", output)
    assert summary is not None, output
    assert int(summary[1]) > 150
