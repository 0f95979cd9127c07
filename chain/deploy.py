"""Puts the contracts on a chain: checked parameters in, a file of addresses out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from getpass import getpass
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from pydantic import ValidationError
from web3 import Web3
from web3.types import Nonce
from web3.utils.address import get_create_address

from declai.chain.artifacts import artifact
from declai.chain.bytecode import check_code, verify
from declai.chain.client import Chain, ContractName, Deployment, Rpc
from declai.chain.contracts.binding import Call, decode_revert, typed_errors
from declai.chain.errors import ChainError, DeploymentError, host_of
from declai.chain.keystore import address_of, open_keystore, read_password
from declai.chain.parameters import Parameters
from declai.chain.sender import TransactionSender

ORDER: list[ContractName] = ["CreditToken", "NodeRegistry", "ModelRegistry", "InferenceLedger", "DisputeCourt"]
EXAMPLE = """examples:
  python -m declai.chain.deploy --rpc-url http://127.0.0.1:8545 --keystore deployer.json --treasury 0x... --dry-run
  python -m declai.chain.deploy --rpc-url http://127.0.0.1:8545 --keystore deployer.json --password-file password \\
      --treasury 0x... --out deployment.json
  python -m declai.chain.deploy --rpc-url http://127.0.0.1:8545 --verify deployment.json
"""


@dataclass(frozen=True)
class Creation:
    """A contract that stands, or would stand, at an address, and the gas that this took or would take."""

    name: str
    address: str
    gas: int


Report = Callable[[Creation], None]


def deploy(
    rpc_url: str, account: LocalAccount, parameters: Parameters, report: Report = lambda creation: None
) -> Deployment:
    """Deploy all contracts from `account`, which keeps no power over them; `report` hears of each one.

    Raises:
        ContractRevert: a parameter is out of the contracts' bounds.
        DeploymentError: another transaction of the account's came in between, or the code is not what was compiled.
    """
    rpc = Rpc(rpc_url)
    sender = TransactionSender(rpc, account)
    block = rpc.block_number()
    at = _addresses(rpc, account.address)
    for name, data in _creations(parameters, at).items():
        receipt = sender.send(Call(None, data, f"create {name}"))
        address = to_checksum_address(receipt["contractAddress"] or bytes(20))
        if address != at[name]:
            raise DeploymentError(f"{name} is at {address}, not {at[name]}: {account.address} sent something else")
        check_code(rpc, name, address)
        report(Creation(name, address, int(receipt["gasUsed"])))
    return Deployment(chain_id=rpc.chain_id, contracts=at, block=block)


def dry_run(rpc_url: str, deployer: str, parameters: Parameters) -> list[Creation]:
    """What `deploy` would do; nothing is sent.

    A contract that asks another one in its constructor finds it by a state override: the code that a call of the other
    one's creation returns, put where it would stand.

    Raises:
        ContractRevert: a parameter is out of the contracts' bounds.
        DeploymentError: the endpoint knows no state overrides.
    """
    rpc = Rpc(rpc_url)
    at = _addresses(rpc, deployer)
    overrides: dict[str, dict[str, str]] = {}
    creations = []
    first = _next_nonce(rpc, deployer)
    for i, (name, data) in enumerate(_creations(parameters, at).items()):
        transaction = {"from": deployer, "data": "0x" + data.hex()}
        code = _ask(rpc, "eth_call", transaction, overrides)
        gas = int(_ask(rpc, "eth_estimateGas", transaction, overrides), 16)
        # With the account's present nonce, the next one would be created where this one stands now.
        overrides |= {at[name]: {"code": code}, deployer: {"nonce": hex(first + i + 1)}}
        creations.append(Creation(name, at[name], gas))
    return creations


def _ask(rpc: Rpc, method: str, transaction: dict[str, str], overrides: dict[str, dict[str, str]]) -> str:
    parameters = [transaction, "latest", *([overrides] if overrides else [])]
    with typed_errors():
        answer: Any = rpc.w3.provider.make_request(method, parameters)  # type: ignore[arg-type]
    if "error" not in answer:
        return str(answer["result"])
    data = answer["error"].get("data")
    data = data.get("data") if isinstance(data, dict) else data
    revert = decode_revert(bytes(HexBytes(data))) if isinstance(data, str) else None
    raise revert or DeploymentError(f"{host_of(rpc.rpc_url)} cannot try a deployment: {answer['error'].get('message')}")


def _addresses(rpc: Rpc, deployer: str) -> dict[ContractName, str]:
    """Where the contracts will be. Some know others that come later, so their addresses are worked out beforehand."""
    account, first = to_checksum_address(deployer), _next_nonce(rpc, deployer)
    return {name: str(get_create_address(account, Nonce(first + i))) for i, name in enumerate(ORDER)}


def _next_nonce(rpc: Rpc, account: str) -> int:
    with typed_errors():
        return int(rpc.w3.eth.get_transaction_count(rpc.w3.to_checksum_address(account)))


def _creations(parameters: Parameters, at: dict[ContractName, str]) -> dict[ContractName, bytes]:
    """What creates each contract, code and arguments, in order."""
    arguments = parameters.arguments({str(name): address for name, address in at.items()})
    return {name: _creation(name, arguments[name]) for name in ORDER}


def _creation(name: str, arguments: tuple[Any, ...]) -> bytes:
    compiled = artifact(name)
    factory = Web3().eth.contract(abi=compiled.abi, bytecode=HexBytes(compiled.bytecode))
    return bytes(HexBytes(factory.constructor(*arguments).data_in_transaction))


def main(arguments: list[str] | None = None) -> None:
    """`python -m declai.chain.deploy`."""
    options = _parser().parse_args(arguments)
    try:
        if options.verify is not None:
            _verify(options)
        elif options.dry_run:
            _dry_run(options)
        else:
            _deploy(options)
    except (ChainError, ValidationError) as error:
        sys.exit(f"Error: {error}")


def _verify(options: argparse.Namespace) -> None:
    found = verify(Chain(options.rpc_url, Deployment.load(options.verify)))
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for name, address in found.items():
        print(f"{name:16} {address}  the code of this version")


def _dry_run(options: argparse.Namespace) -> None:
    _need(options, "treasury", "keystore")
    deployer = address_of(options.keystore)
    if deployer is None:
        raise DeploymentError(f"{options.keystore} is no keystore")
    creations = dry_run(options.rpc_url, deployer, _parameters(options))
    gas_price = int(Rpc(options.rpc_url).w3.eth.gas_price)
    total = sum(creation.gas for creation in creations)
    if options.json:
        rows = [vars(creation) for creation in creations]
        print(json.dumps({"contracts": rows, "gas": total, "gas_price_wei": gas_price}, indent=2))
        return
    for creation in creations:
        _show(creation)
    cost = total * gas_price / 10**18
    print(f"{'total':16} {'':42} {total:11,} gas, {cost:.6f} ETH at {gas_price / 10**9:.3f} gwei; nothing was sent")


def _deploy(options: argparse.Namespace) -> None:
    _need(options, "treasury", "keystore")
    parameters = _parameters(options)
    password = read_password(options.password_file) if options.password_file else getpass("Password: ")
    account = open_keystore(options.keystore, password)
    deployment = deploy(options.rpc_url, account, parameters, lambda made: _show(made, sys.stderr))
    deployment.save(options.out)
    if options.json:
        print(deployment.model_dump_json(indent=2))
    else:
        print(f"{options.out}: chain {deployment.chain_id}, from block {deployment.block}")


def _show(creation: Creation, file: Any = None) -> None:
    print(f"{creation.name:16} {creation.address} {creation.gas:11,} gas", file=file, flush=True)


def _need(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(options, name) is None:
            _parser().error(f"--{name} is needed")


def _parameters(options: argparse.Namespace) -> Parameters:
    return Parameters(**{name: getattr(options, name) for name in Parameters.model_fields})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m declai.chain.deploy",
        usage="%(prog)s --rpc-url URL [--keystore FILE --treasury ADDRESS | --verify FILE] [options]",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rpc-url", required=True)
    parser.add_argument("--keystore", type=Path, help="keystore of the deploying account")
    parser.add_argument("--password-file", type=Path, help="asked for when there is none")
    parser.add_argument("--out", type=Path, default=Path("deployment.json"))
    parser.add_argument("--dry-run", action="store_true", help="gas and addresses; sends nothing, asks no password")
    parser.add_argument("--verify", type=Path, metavar="FILE", help="check a deployment's code and wiring instead")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--treasury", help="address that may mint credits and receives fines")
    group = parser.add_argument_group("parameters", "periods in seconds, amounts in base units, shares in basis points")
    for name, field in Parameters.model_fields.items():
        if name != "treasury":
            group.add_argument(f"--{name.replace('_', '-')}", type=int, default=field.default, help="(%(default)s)")
    return parser


if __name__ == "__main__":
    main()
