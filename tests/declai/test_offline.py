"""Commands that need no network: help, wallets, files by content, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from declai.cli import GROUPS, devnet
from declai.errors import DeclaiError
from tests.support.devnet import Cli


def test_help_lists_every_group_and_each_explains_itself(cli: Cli) -> None:
    text = cli.ok("--help")
    for group in GROUPS:
        assert group in text
        assert "Usage: declai" in cli.ok(group, "--help")
    assert cli.ok("--version").strip()


def test_wrong_usage_exits_with_2(cli: Cli) -> None:
    cli.fails("nothing", code=2)
    cli.fails("ipfs", "add", code=2)
    cli.fails("receipt", "show", "0x12", code=2)


def test_without_a_network_the_error_says_how_to_get_one(cli: Cli) -> None:
    assert "declai devnet up" in cli.fails("market")
    assert "declai devnet up" in cli.fails("devnet", "status")
    assert cli.ok("devnet", "down") == ""


def test_wallets_are_made_imported_and_shown(cli: Cli, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("a long password\n")
    alice = cli.json("wallet", "new", "alice", "--password-file", str(password))
    assert cli.json("wallet", "show", "alice")["address"].lower() == alice["address"].lower()
    assert Path(alice["keystore"]).stat().st_mode & 0o777 == 0o600
    assert "never overwritten" in cli.fails("wallet", "new", "alice", "--password-file", str(password))
    key = tmp_path / "key"
    key.write_text("11" * 32)
    bob = cli.json("wallet", "import", "bob", "--key-file", str(key), "--password-file", str(password))
    assert bob["address"] == "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
    assert "11111111" not in json.dumps(bob)
    assert "alice" in cli.fails("wallet", "show", "carol")


def test_files_go_in_and_come_out_by_content(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(bytes(range(256)) * 10_000)
    cid = cli.ok("ipfs", "add", str(source)).strip()
    assert cid.startswith("bafybei")
    assert cli.ok("ipfs", "add", str(source)).strip() == cid
    cli.ok("ipfs", "get", cid, "-o", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert cli.json("ipfs", "stat", cid)["file_bytes"] == 2_560_000
    assert cli.json("ipfs", "verify", cid)["ok"]
    block = next((cli.home / "blocks" / "blocks").glob("*/bafkrei*"))
    block.write_bytes(b"damaged")
    report = cli.run("ipfs", "verify", cid, "--json")
    assert report.returncode == 1
    assert json.loads(report.stdout)["corrupt"] == [block.name] * json.loads(report.stdout)["corrupt"].count(block.name)
    cli.fails("ipfs", "cat", cid)
    cli.fails("ipfs", "cat", "not-a-cid")
    text = tmp_path / "text"
    text.write_text("hello\n")
    assert cli.ok("ipfs", "cat", cli.ok("ipfs", "add", str(text)).strip()) == "hello\n"


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_damaged_network_file_is_named(cli: Cli, tmp_path: Path, content: str) -> None:
    path = tmp_path / "network.json"
    path.write_text(content)
    assert str(path) in cli.fails("market", "--network", str(path))


def test_a_folder_that_is_no_devnets_is_never_emptied(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    assert "not a devnet" in cli.fails("devnet", "up", "--dir", str(folder))
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_devnet_without_the_demos_model_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devnet, "DEFAULT_MODEL", tmp_path / "models" / "declai-demo")
    ended = CliRunner().invoke(devnet.command, ["up", "--dir", str(tmp_path / "devnet")])
    assert isinstance(ended.exception, DeclaiError)
    assert "--model" in str(ended.exception)
    assert not (tmp_path / "devnet").exists()
