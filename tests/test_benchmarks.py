"""The benchmarks run: who doubts a figure can make it again. Small sizes; what they measure here means nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    ("command", "results"),
    [
        ("hop.py --tokens 20", ["hop"]),
        ("relay.py --rounds 20", ["relay"]),
        ("slicing.py --rounds 1", ["slicing"]),
        ("engine.py --quick --only memory --only distance", ["engine_memory", "engine_distance"]),
    ],
)
def test_a_benchmark_prints_a_table_and_writes_json(command: str, results: list[str]) -> None:
    written = [ROOT / "build" / "benchmarks" / f"{name}.json" for name in results]
    before = [path.read_text() if path.exists() else "" for path in written]
    script, *arguments = command.split()
    try:
        done = subprocess.run(
            [sys.executable, f"benchmarks/{script}", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=270
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout.strip()
        for path, old in zip(written, before, strict=True):
            assert path.read_text() != old
            assert json.loads(path.read_text())["figures"]
    finally:
        for path, old in zip(written, before, strict=True):
            if old:
                path.write_text(old)  # a figure that somebody measured in earnest stays
