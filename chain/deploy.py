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
from web3.types import Nonce
from web3.utils.address import get_create_address

from chain.client import ContractName, Deployment, Rpc
from chain.contracts.binding import Call, artifact
from chain.errors import ChainError, DeploymentError
from chain.fields import Address
from chain.keystore import open_keystore, read_password
from chain.pricing import UNITS_PER_CREDIT
from chain.sender import TransactionSender

HOUR = 3600
DAY_S = 24 * HOUR
EXAMPLE = """example:
  python -m chain.deploy --rpc-url http://127.0.0.1:8545 --keystore deployer.json --password-file password \\
      --treasury 0x... --out deployment.json
"""


class Parameters(BaseModel):
    """What the contracts' constructors take; the contracts check the same bounds. Amounts in base units."""

    model_config = ConfigDict(frozen=True)

    treasury: Address
    stake_thaw_s: int = Field(default=7 * DAY_S, ge=1)
    lock_multiple: int = Field(default=10, ge=1)
    half_weight: int = Field(default=100 * UNITS_PER_CREDIT, gt=0)
    decay_epochs: int = Field(default=30, ge=1)
    min_worker_stake: int = Field(default=100 * UNITS_PER_CREDIT, gt=0, lt=2**128)
    min_gateway_stake: int = Field(default=1000 * UNITS_PER_CREDIT, gt=0, lt=2**128)
    min_auditor_stake: int = Field(default=100 * UNITS_PER_CREDIT, gt=0, lt=2**128)
    session_thaw_s: int = Field(default=1 * DAY_S, ge=1)
    epoch_length_s: int = Field(default=2 * DAY_S, ge=1)
    batch_retention_s: int = Field(default=4 * DAY_S, ge=1)
    claim_delay_s: int = Field(default=3600, ge=0)
    claim_period_s: int = Field(default=1 * DAY_S, ge=1)
    claim_window_s: int = Field(default=DAY_S // 2, ge=1)
    claim_bond: int = Field(default=1 * UNITS_PER_CREDIT, gt=0)
    max_fee_bps: int = Field(default=2000, ge=0, le=10_000)
    challenge_period_s: int = Field(default=3 * DAY_S, ge=1)
    answer_period_s: int = Field(default=DAY_S // 2, ge=1)
    evidence_period_s: int = Field(default=7 * DAY_S, ge=1)
    jail_period_s: int = Field(default=30 * DAY_S, ge=1)
    challenge_bond: int = Field(default=1 * UNITS_PER_CREDIT, gt=0)
    equivocation_bps: int = Field(default=5000, gt=0, le=10_000)
    reward_bps: int = Field(default=2000, ge=0, le=5000)
    fine_bps: int = Field(default=1000, ge=0, le=10_000)
    dispute_period_s: int = Field(default=HOUR, ge=1)
    opening_period_s: int = Field(default=6 * HOUR, ge=1)
    draw_period_s: int = Field(default=HOUR, ge=1)
    commit_period_s: int = Field(default=12 * HOUR, ge=1)
    reveal_period_s: int = Field(default=6 * HOUR, ge=1)
    appeal_period_s: int = Field(default=12 * HOUR, ge=1)
    cap_bps: int = Field(default=5000, gt=0, le=10_000)
    dispute_bond: int = Field(default=25 * UNITS_PER_CREDIT, gt=0)
    juror_fee: int = Field(default=UNITS_PER_CREDIT // 2, gt=0)
    juror_penalty: int = Field(default=2 * UNITS_PER_CREDIT, gt=0)
    draw_delay_blocks: int = Field(default=4, ge=1, le=32)
    jury_size: int = Field(default=5, ge=3, le=11)
    min_jury: int = Field(default=3, ge=3, le=11)
    max_rounds: int = Field(default=3, ge=1, le=3)
    warning_share: int = Field(default=500_000, ge=1, le=1_000_000, description="millionths of the slashing threshold")
    tolerance: int = Field(default=50_000, ge=1, le=500_000, description="millionths of the slashing threshold")


def deploy(rpc_url: str, account: LocalAccount, parameters: Parameters) -> Deployment:
    """Deploy all contracts from `account`, which keeps no power over them.

    Raises:
        ContractRevert: a parameter is out of the contracts' bounds.
        DeploymentError: the stake's thaw is not longer than the sessions', or another transaction came in between.
    """
    p = parameters
    if p.stake_thaw_s <= p.session_thaw_s + p.claim_window_s:
        raise DeploymentError(
            f"stakes must thaw longer ({p.stake_thaw_s} s) than sessions and the claims on them "
            f"({p.session_thaw_s} + {p.claim_window_s} s)"
        )
    rpc = Rpc(rpc_url)
    sender = TransactionSender(rpc, account)
    block = rpc.block_number()
    order: list[ContractName] = ["CreditToken", "NodeRegistry", "ModelRegistry", "InferenceLedger", "DisputeCourt"]
    first = rpc.w3.eth.get_transaction_count(account.address)
    # The registry, the ledger and the court know one another, so their addresses are worked out before they are made.
    at = {name: str(get_create_address(account.address, Nonce(first + i))) for i, name in enumerate(order)}
    stakes = (p.min_worker_stake, p.min_gateway_stake, p.min_auditor_stake)
    registry = (p.stake_thaw_s, p.lock_multiple, p.half_weight, p.decay_epochs, *stakes)
    claims = (p.claim_delay_s, p.claim_period_s, p.claim_window_s, p.claim_bond)
    ledger = (p.session_thaw_s, p.epoch_length_s, p.batch_retention_s, *claims, p.max_fee_bps)
    periods = (p.challenge_period_s, p.answer_period_s, p.evidence_period_s, p.jail_period_s)
    court = (*periods, p.challenge_bond, p.equivocation_bps, p.reward_bps, p.fine_bps)
    terms = (p.cap_bps, p.dispute_bond, p.juror_fee, p.juror_penalty)
    disputes = (p.dispute_period_s, p.opening_period_s, *terms)
    votes = (p.draw_period_s, p.commit_period_s, p.reveal_period_s, p.appeal_period_s)
    sizes = (p.draw_delay_blocks, p.jury_size, p.min_jury, p.max_rounds)
    juries = (*votes, *sizes, p.warning_share, p.tolerance)
    arguments: dict[ContractName, tuple[Any, ...]] = {
        "CreditToken": (p.treasury,),
        "NodeRegistry": (at["CreditToken"], at["InferenceLedger"], at["DisputeCourt"], registry),
        "ModelRegistry": (),
        "InferenceLedger": (at["CreditToken"], at["NodeRegistry"], ledger),
        "DisputeCourt": (at["InferenceLedger"], p.treasury, court, disputes, juries),
    }
    for name in order:
        address = _create(sender, name, *arguments[name])
        if address != at[name]:
            raise DeploymentError(f"{name} is at {address}, not {at[name]}: {account.address} sent something else")
    return Deployment(chain_id=rpc.chain_id, contracts=at, block=block)


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
