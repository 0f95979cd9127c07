"""What is tested on Anvil holds elsewhere: the tests that ask most of a development chain pass on the Hardhat node."""

from __future__ import annotations

import subprocess
import sys

from tests.support.devnet import ROOT

# Sending, replacing, reorganisations, events; then contracts' code, impersonation and balances set from outside.
ASKING_MOST = [
    "tests/chain/test_kinds.py",
    "tests/chain/test_sender.py",
    "tests/chain/test_index.py",
    "tests/api/auth/test_signin.py",
]


def test_the_chains_hardest_tests_pass_on_hardhat() -> None:
    command = [sys.executable, "-m", "pytest", "--chain", "hardhat", *ASKING_MOST]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
