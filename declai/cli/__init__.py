"""The `declai` command: groups are imported when one is used, so that `declai --help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from declai import __version__
from declai.cli.lazy import LazyCommand, LazyGroup
from declai.cli.output import report_failure

GROUPS = {
    "devnet": LazyCommand("A whole network on this machine: up, status, down.", "devnet:command", "devnet"),
    "chat": LazyCommand("Ask a model and stream its answer.", "chat:command"),
    "wallet": LazyCommand("Encrypted keystores: new, import, show.", "wallet:command"),
    "credits": LazyCommand("Balance, deposit, withdraw, send.", "credits:command"),
    "session": LazyCommand(
        "Budgets that requests are paid from: open, list, top-up, close, login, proxy.", "session:command"
    ),
    "model": LazyCommand("Publish, list, show, pull and verify models.", "model:command"),
    "ipfs": LazyCommand("Content-addressed files: add, cat, get, stat, verify.", "ipfs:command"),
    "market": LazyCommand("The offers: model, layers, price, speed.", "market:command"),
    "receipt": LazyCommand("Show a request's receipts; verify them from the chain and IPFS alone.", "receipt:command"),
    "node": LazyCommand(
        "A contributor's node: doctor, bench, register, stake, offer, start, earnings, claim, faults.", "node:command"
    ),
    "gateway": LazyCommand("Run a region's gateway: start, status, settle.", "gateway:command"),
}


@click.group(
    cls=LazyGroup,
    package=__name__,
    lazy=GROUPS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__)
def root() -> None:
    """Serve and use large language models from a community's GPUs.

    \b
    Try it:  declai devnet up                      (in another terminal)
             declai chat "What is a list?"
             declai receipt verify REQUEST
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the CLI and exit: 0 done, 1 failed, 2 wrong usage."""
    try:
        root.main(list(sys.argv[1:] if arguments is None else arguments), prog_name="declai", standalone_mode=False)
    except click.exceptions.Exit as request:
        sys.exit(request.exit_code)
    except click.Abort:
        click.echo("Stopped.", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        report_failure(error)
        sys.exit(1)
