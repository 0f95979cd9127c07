"""`declai node register` and `deregister` on a real chain: every role, every refusal, and what scripts get."""

from __future__ import annotations

from pathlib import Path

import pytest

from declai.chain.contracts.nodes import Role
from declai.chain.messages import new_account
from declai.chain.pricing import UNITS_PER_CREDIT
from tests.support.desks import Desk

ENDPOINT = "tcp://node.example:8082"


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A worker's registration that nothing speaks against."""
    return ["node", "register", "--signer", "signer", "--link-key", str(tmp_path / "link.key"), "--endpoint", ENDPOINT]


def address(desk: Desk, wallet: str) -> str:
    return desk.network.wallets[wallet].address


def test_a_worker_stakes_the_minimum_and_the_program_says_what_stands(desk: Desk, arguments: list[str]) -> None:
    found = desk.json(*arguments, "--region", "eu-west")
    node = desk.chain.nodes.node(address(desk, "operator"))
    assert (node.signer, node.roles, node.endpoint, node.region) == (
        address(desk, "signer"),
        Role.WORKER,
        ENDPOINT,
        "eu-west",
    )
    assert node.stake == desk.chain.nodes.minimum_stake(Role.WORKER)
    assert found["stake_units"] == str(node.stake)
    assert found["link_key"] == "0x" + node.link_key.hex()
    assert found.keys() == {
        "operator",
        "signer",
        "link_key",
        "stake_units",
        "thawing_units",
        "thaw_ends_at",
        "transaction",
        "gas_used",
    }
    # Its key pair is for its owner alone, and the same file gives the same key again.
    assert Path(arguments[5]).stat().st_mode & 0o077 == 0


def test_all_roles_stake_the_sum_and_a_gateways_signer_settles(desk: Desk, arguments: list[str]) -> None:
    roles = [word for role in ("worker", "gateway", "auditor") for word in ("--role", role)]
    assert "a gateway needs --url" in desk.fails(*arguments, *roles, code=2)
    assert "'gateway.example' is not http(s)://HOST" in desk.fails(
        *arguments, *roles, "--url", "gateway.example", code=2
    )
    out = desk.ok(*arguments, *roles, "--url", "https://gateway.example/")
    assert "1200 credits" in out
    node = desk.chain.nodes.node(address(desk, "operator"))
    assert node.roles == Role.WORKER | Role.GATEWAY | Role.AUDITOR
    assert node.url == "https://gateway.example"
    assert desk.chain.ledger.settler_of(address(desk, "operator")) == address(desk, "signer")


def test_a_worker_that_nobody_can_reach_says_so_and_a_gateway_cannot(desk: Desk, arguments: list[str]) -> None:
    unreachable = [*arguments, "--endpoint", "relay"]
    gateway = ["--role", "gateway", "--url", "https://gateway.example"]
    assert "a gateway must be reachable" in desk.fails(*unreachable, *gateway, code=2)
    desk.ok(*unreachable)
    assert desk.chain.nodes.node(address(desk, "operator")).endpoint == "relay"


def test_more_stake_than_the_minimum_and_less(desk: Desk, arguments: list[str]) -> None:
    text = desk.fails(*arguments, "--stake", "99.5")
    assert "a stake of 99.5 credits is too small: the minimum for a worker is 100" in text
    assert "'1e30' credits are more than" in desk.fails(*arguments, "--stake", "1e30", code=2)
    assert desk.json(*arguments, "--stake", "100.5")["stake_units"] == str(201 * UNITS_PER_CREDIT // 2)


def test_keys_of_others_are_refused_before_anything_is_sent(desk: Desk, arguments: list[str], tmp_path: Path) -> None:
    desk.ok(*arguments)
    first = address(desk, "operator")
    second = desk.keep("second", desk.world.rich())
    own = ["--wallet", "second"]
    text = desk.fails(*arguments, *own)
    assert f"{address(desk, 'signer')} signs for {first}" in text
    text = desk.fails(*arguments, *own, "--signer", first)
    assert f"{first} signs for {first}" in text
    desk.keep("second-signer", new_account())
    text = desk.fails(*arguments, *own, "--signer", "second-signer")
    assert f"belongs to {first}: name a new file with --link-key" in text
    assert desk.chain.token.allowance(second.address, desk.chain.nodes.address) == 0
    assert desk.chain.w3.eth.get_transaction_count(second.address) == 0
    desk.ok("node", "deregister")
    # A signer keeps its side also when its operator left.
    assert f"signs for {first}" in desk.fails(*arguments, *own)


def test_who_is_registered_leaves_before_he_comes_back(desk: Desk, arguments: list[str]) -> None:
    desk.ok(*arguments)
    text = desk.fails(*arguments)
    assert "is registered already" in text
    assert "declai node deregister" in text
    left = desk.json("node", "deregister")
    assert (left["stake_units"], left["thawing_units"]) == ("0", str(100 * UNITS_PER_CREDIT))
    text = desk.fails("node", "deregister")
    assert "has registered no node: is --wallet your operator's?" in text
    desk.ok(*arguments)
    node = desk.chain.nodes.node(address(desk, "operator"))
    assert (node.term, node.stake, node.thawing) == (2, 100 * UNITS_PER_CREDIT, 100 * UNITS_PER_CREDIT)


def test_a_wallet_without_credits_or_gas_is_told_so(desk: Desk, arguments: list[str]) -> None:
    poor = desk.keep("poor", new_account())
    text = desk.fails(*arguments, "--wallet", "poor")
    assert f"the wallet {poor.address} holds 0 credits, 100 are needed" in text
    world = desk.world
    world.send(world.treasury, world.chain.token.mint(poor.address, 100 * UNITS_PER_CREDIT))
    text = desk.fails(*arguments, "--wallet", "poor")
    assert f"{poor.address} has too little ETH for gas" in text
    saver = desk.keep("saver", world.rich())
    world.deposit(saver, 9_950 * UNITS_PER_CREDIT)
    text = desk.fails(*arguments, "--wallet", "saver")
    assert "9950 lie in the ledger, fetch them with `declai credits withdraw`" in text


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--endpoint", "node.example:8082", "'node.example:8082' is not tcp://HOST:PORT"),
        ("--endpoint", "tcp://node.example:70000", "is not tcp://HOST:PORT"),
        ("--endpoint", f"tcp://{'n' * 250}:8082", "261 bytes are too long: the registry keeps 256"),
        ("--region", "é" * 129, "258 bytes are too long"),
        ("--profile", "b" * 257, "257 bytes are too long"),
        ("--link-key", "0x12", "'0x12' is no link key"),
        ("--link-key", "0x" + "00" * 32, "is no link key"),
        ("--signer", "0x12", "'0x12' is not an address"),
        ("--role", "king", "'king' is not one of"),
        ("--stake", "much", "'much' is not an amount of credits"),
    ],
)
def test_wrong_options_are_wrong_usage(desk: Desk, arguments: list[str], option: str, value: str, said: str) -> None:
    assert said in desk.fails(*arguments, option, value, code=2)


def test_files_that_hold_no_key_pair_are_named(desk: Desk, arguments: list[str], tmp_path: Path) -> None:
    junk = tmp_path / "junk.key"
    junk.write_text("half a key")
    junk.chmod(0o644)
    assert f"others may read {junk}" in desk.fails(*arguments, "--link-key", str(junk))
    junk.chmod(0o600)
    text = desk.fails(*arguments, "--link-key", str(junk))
    assert f"{junk} holds no link key pair" in text
    assert "half a key" not in text


def test_a_wallet_that_is_not_there_or_does_not_open(desk: Desk, arguments: list[str], tmp_path: Path) -> None:
    text = desk.fails(*arguments, "--signer", "nobody")
    assert "no wallet 'nobody'; there is: operator, signer. Make one with `declai wallet new nobody`" in text
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("not the password")
    text = desk.fails(*arguments, "--password-file", str(wrong))
    assert "wrong password for" in text
    assert "not the password" not in text
