"""`declai node`: a contributor's machine and its operator. The commands lie in this folder's files, by subject."""

from __future__ import annotations

import click

from declai.cli.node.bench import bench
from declai.cli.node.claim import claim
from declai.cli.node.doctor import doctor
from declai.cli.node.offer import offer
from declai.cli.node.record import earnings, faults
from declai.cli.node.registration import deregister, register
from declai.cli.node.serve import start, status
from declai.cli.node.stake import stake, unstake, withdraw


@click.group("node")
def command() -> None:
    """Register with a stake, offer layers, serve them, and take what is owed.

    See docs/contributors.md.

    \b
    declai node register --signer signer --link-key link.key \\
        --endpoint tcp://node.example:8082
    declai node offer my-model --layers 0-5 --prompt-price 1 --output-price 3
    declai node doctor --config node.toml
    declai node start --config node.toml
    declai node claim --config node.toml
    """


for _command in (
    doctor,
    bench,
    register,
    stake,
    unstake,
    withdraw,
    offer,
    start,
    status,
    earnings,
    claim,
    faults,
    deregister,
):
    command.add_command(_command)
