"""`declai node stake`, `unstake` and `withdraw`: the stake goes in at once and comes out by a thaw."""

from __future__ import annotations

from pathlib import Path

import click

from declai.chain.pricing import format_credits
from declai.cli.node.operating import open_operating, print_node
from declai.cli.options import POSITIVE_CREDITS, network_option, operator_options
from declai.cli.output import json_option


@click.command()
@click.argument("amount", type=POSITIVE_CREDITS)
@network_option
@operator_options
@json_option
def stake(amount: int, network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool) -> None:
    """Add AMOUNT credits of the operator's wallet to the node's stake.

    \b
    declai node stake 100 --wallet operator
    """
    operator = open_operating(network_path, wallet_name, password_file).operator()
    receipt = operator.add_stake(amount)
    print_node(operator, operator.node(), receipt, as_json)


@click.command()
@click.argument("amount", type=POSITIVE_CREDITS)
@network_option
@operator_options
@json_option
def unstake(
    amount: int, network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool
) -> None:
    """Begin to thaw AMOUNT credits of stake, and say when they can be withdrawn.

    The clock of all that thaws starts anew; what thaws can still be slashed. A node whose stake falls below its roles'
    minimum is inactive.

    \b
    declai node unstake 50 --wallet operator
    """
    operator = open_operating(network_path, wallet_name, password_file).operator()
    receipt = operator.begin_unstake(amount)
    node = operator.node()
    minimum, locked = (
        operator.chain.nodes.minimum_stake(node.roles),
        operator.chain.nodes.locked_stake(operator.address),
    )
    print_node(operator, node, receipt, as_json, locked_units=locked, minimum_units=minimum)
    if node.stake < minimum:
        missing = format_credits(minimum - node.stake)
        click.secho(
            f"the node is inactive until {missing} credits are added with `declai node stake`: its stake is below the "
            "minimum of its roles",
            fg="yellow",
            err=True,
        )


@click.command()
@network_option
@operator_options
@json_option
def withdraw(network_path: Path | None, wallet_name: str, password_file: Path | None, as_json: bool) -> None:
    """Bring the stake that has thawed into the operator's wallet.

    What recent earnings lock of it stays until they lock it no more.

    Earnings go another way: they are a balance in the ledger, for `declai credits withdraw`.

    \b
    declai node withdraw --wallet operator
    """
    operator = open_operating(network_path, wallet_name, password_file).operator()
    amount, receipt = operator.withdraw_stake()
    node = operator.chain.nodes.node(operator.address)
    print_node(operator, node, receipt, as_json, withdrawn_units=amount)
