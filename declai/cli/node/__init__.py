"""`declai node`: a contributor's machine and its operator. The commands lie in this folder's files, by subject."""

from __future__ import annotations

import click

from declai.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "doctor": LazyCommand("Examine this machine, its keys, its registration and its gateway.", "doctor:doctor", "node"),
    "bench": LazyCommand("Measure how fast this machine serves layers, and what limits it.", "bench:bench", "node"),
    "register": LazyCommand("Stake, and register a node.", "registration:register"),
    "stake": LazyCommand("Add credits to the stake.", "stake:stake"),
    "unstake": LazyCommand("Begin to thaw stake.", "stake:unstake"),
    "withdraw": LazyCommand("Bring thawed stake into the wallet.", "stake:withdraw"),
    "offer": LazyCommand("Offer layers of a model at a price, or take it back.", "offer:offer"),
    "start": LazyCommand("Serve the layers that this node offers.", "serve:start", "node"),
    "status": LazyCommand("Show how the node on this machine is.", "serve:status"),
    "earnings": LazyCommand("Show what a node earned and where it lies.", "record:earnings"),
    "claim": LazyCommand("Take what gateways did not settle.", "claim:claim", "node"),
    "faults": LazyCommand("Show what the chain holds against a node.", "record:faults"),
    "deregister": LazyCommand("End the registration; all stake thaws.", "registration:deregister"),
}


@click.group("node", cls=LazyGroup, package=__name__, lazy=COMMANDS)
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
