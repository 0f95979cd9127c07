"""A deployment from the command line: what it would cost, what it does, and whether the code is ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount

from declai.chain.bytecode import verify
from declai.chain.client import Chain, Deployment, Rpc
from declai.chain.deploy import Creation, deploy, dry_run, main
from declai.chain.errors import ContractRevert, DeploymentError
from declai.chain.keystore import SCRYPT_LIGHT, save
from declai.chain.messages import new_account
from declai.chain.parameters import Parameters
from declai.devnet.chain_setup import fund
from tests.support.world import World


@pytest.fixture
def deployer(chain_url: str) -> LocalAccount:
    account = new_account()
    fund(Rpc(chain_url), [account.address])
    return account


@pytest.fixture
def keystore(deployer: LocalAccount, tmp_path: Path) -> list[str]:
    """Options that name the deployer's key."""
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    save(deployer, tmp_path / "deployer.json", "secret", SCRYPT_LIGHT)
    return ["--keystore", str(tmp_path / "deployer.json"), "--password-file", str(tmp_path / "password")]


def test_a_dry_run_names_the_addresses_and_the_gas_of_the_deployment(
    chain_url: str, chain_kind: str, deployer: LocalAccount
) -> None:
    parameters = Parameters(treasury=deployer.address)
    if chain_kind == "hardhat":  # estimates gas without state overrides
        with pytest.raises(DeploymentError, match="cannot try a deployment"):
            dry_run(chain_url, deployer.address, parameters)
        return
    nonce = Rpc(chain_url).w3.eth.get_transaction_count(deployer.address)
    planned = dry_run(chain_url, deployer.address, parameters)
    assert Rpc(chain_url).w3.eth.get_transaction_count(deployer.address) == nonce
    made: list[Creation] = []
    deploy(chain_url, deployer, parameters, made.append)
    assert [(m.name, m.address) for m in made] == [(p.name, p.address) for p in planned]
    for real, estimate in zip(made, planned, strict=True):
        assert real.gas <= estimate.gas <= 1.02 * real.gas


def test_parameters_out_of_bounds_are_named(chain_url: str, chain_kind: str, deployer: LocalAccount) -> None:
    parameters = Parameters(treasury=deployer.address, juror_fee=10**24)
    with pytest.raises(ContractRevert, match="jurorFee"):
        deploy(chain_url, deployer, parameters)
    if chain_kind == "anvil":
        with pytest.raises(ContractRevert, match="jurorFee"):
            dry_run(chain_url, deployer.address, parameters)


def test_stakes_that_thaw_too_early_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="stakes must thaw longer"):
        Parameters(treasury="0x" + "11" * 20, stake_thaw_s=3600)


def test_the_command_deploys_and_verifies(
    chain_url: str, keystore: list[str], deployer: LocalAccount, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deployment.json"
    endpoint = ["--rpc-url", chain_url]
    main([*endpoint, *keystore, "--treasury", deployer.address, "--out", str(out)])
    assert "DisputeCourt" in capsys.readouterr().err
    main([*endpoint, "--verify", str(out), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["InferenceLedger"] == Deployment.load(out).contracts["InferenceLedger"]
    assert {"Jury", "Examiner"} < set(found)


def test_wrong_use_says_what_is_missing(chain_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--rpc-url", chain_url, "--dry-run"])
    assert stopped.value.code == 2
    assert "--treasury is needed" in capsys.readouterr().err


def test_other_code_and_other_wiring_are_found(world: World, chain_url: str) -> None:
    ours = world.chain.deployment
    assert set(verify(world.chain)) == {*ours.contracts, "Jury", "Examiner"}
    swapped = ours.contracts | {"NodeRegistry": ours.contracts["ModelRegistry"]}
    with pytest.raises(DeploymentError, match="not that of NodeRegistry"):
        verify(Chain(chain_url, ours.model_copy(update={"contracts": swapped})))
    nowhere = ours.contracts | {"ModelRegistry": new_account().address}
    with pytest.raises(DeploymentError, match="no code"):
        verify(Chain(chain_url, ours.model_copy(update={"contracts": nowhere})))
    twin = deploy(chain_url, world.treasury, Parameters(treasury=world.treasury.address))
    mixed = ours.contracts | {"DisputeCourt": twin.contracts["DisputeCourt"]}
    with pytest.raises(DeploymentError, match=r"NodeRegistry\.court"):
        verify(Chain(chain_url, ours.model_copy(update={"contracts": mixed})))
