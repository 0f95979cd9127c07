"""Puts the contracts on a chain: checked parameters in, a file of addresses out."""

from __future__ import annotations

import argparse
import sys
from getpass import getpass
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from web3 import Web3

from chain.client import ContractName, Deployment, Rpc
from chain.contracts.binding import Call, artifact
from chain.errors import ChainError, DeploymentError
from chain.fields import Address
from chain.keystore import open_keystore, read_password
from chain.pricing import UNITS_PER_CREDIT
from chain.sender import TransactionSender

DAY_S = 86_400
EXAMPLE = """example:
  python -m chain.deploy --rpc-url http://127.0.0.1:8545 --keystore deployer.json --password-file password \\
      --treasury 0x... --out deployment.json
"""


class Parameters(BaseModel):
    """What the contracts' constructors take; the contracts check the same bounds. Stakes in base units."""

    model_config = ConfigDict(frozen=True)

    treasury: Address
    stake_thaw_s: int = Field(default=7 * DAY_S, ge=1)
    session_thaw_s: int = Field(default=1 * DAY_S, ge=1)
    min_worker_stake: int = Field(default=100 * UNITS_PER_CREDIT, gt=0, lt=2**128)
    min_gateway_stake: int = Field(default=1000 * UNITS_PER_CREDIT, gt=0, lt=2**128)
    min_auditor_stake: int = Field(default=100 * UNITS_PER_CREDIT, gt=0, lt=2**128)
    max_fee_bps: int = Field(default=2000, ge=0, le=10_000)


def deploy(rpc_url: str, account: LocalAccount, parameters: Parameters) -> Deployment:
    """Deploy all contracts from `account`, which keeps no power over them.

    Raises:
        ContractRevert: a parameter is out of the contracts' bounds.
        DeploymentError: the stake's thaw is not longer than the sessions'.
    """
    p = parameters
    if p.stake_thaw_s <= p.session_thaw_s:
        raise DeploymentError(f"stakes must thaw longer ({p.stake_thaw_s} s) than sessions ({p.session_thaw_s} s)")
    rpc = Rpc(rpc_url)
    sender = TransactionSender(rpc, account)
    block = rpc.block_number()
    token = _create(sender, "CreditToken", p.treasury)
    stakes = (p.min_worker_stake, p.min_gateway_stake, p.min_auditor_stake)
    nodes = _create(sender, "NodeRegistry", token, p.stake_thaw_s, *stakes)
    models = _create(sender, "ModelRegistry")
    ledger = _create(sender, "InferenceLedger", token, nodes, p.session_thaw_s, p.max_fee_bps)
    contracts: dict[ContractName, Any] = {
        "CreditToken": token,
        "NodeRegistry": nodes,
        "ModelRegistry": models,
        "InferenceLedger": ledger,
    }
    return Deployment(chain_id=rpc.chain_id, contracts=contracts, block=block)


def _create(sender: TransactionSender, name: ContractName, *arguments: Any) -> str:
    compiled = artifact(name)
    factory = Web3().eth.contract(abi=compiled.abi, bytecode=HexBytes(compiled.bytecode))
    data = factory.constructor(*arguments).data_in_transaction
    receipt = sender.send(Call(None, bytes(HexBytes(data)), f"create {name}"))
    address = receipt["contractAddress"]
    if address is None:
        raise DeploymentError(f"the node reports no address for {name}")
    code = sender.chain.w3.eth.get_code(address)
    if len(code) * 2 != len(compiled.deployed_bytecode.removeprefix("0x")):
        raise DeploymentError(f"the code of {name} at {address} is not what was compiled")
    return str(to_checksum_address(address))


def main(arguments: list[str] | None = None) -> None:
    """`python -m chain.deploy`."""
    parser = argparse.ArgumentParser(
        prog="python -m chain.deploy",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rpc-url", required=True)
    parser.add_argument("--keystore", type=Path, required=True, help="keystore of the deploying account")
    parser.add_argument("--password-file", type=Path, help="asked for when there is none")
    parser.add_argument("--out", type=Path, default=Path("deployment.json"))
    parser.add_argument("--treasury", required=True, help="address that may mint credits")
    for name, field in Parameters.model_fields.items():
        if name != "treasury":
            parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=field.default, help="(%(default)s)")
    options = vars(parser.parse_args(arguments))
    try:
        parameters = Parameters(**{name: options[name] for name in Parameters.model_fields})
        password = read_password(options["password_file"]) if options["password_file"] else getpass("Password: ")
        deployment = deploy(options["rpc_url"], open_keystore(options["keystore"], password), parameters)
        deployment.save(options["out"])
    except (ChainError, ValidationError) as error:
        sys.exit(f"Error: {error}")
    print(f"{options['out']}: {deployment.model_dump_json(indent=2)}")


if __name__ == "__main__":
    main()
