"""The `declai` command: groups are imported when one is used, so that `declai --help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from declai import __version__
from declai.cli.output import report_failure

GROUPS = {
    "devnet": "A whole network on this machine: up, status, down.",
    "chat": "Ask a model and stream its answer.",
    "wallet": "Encrypted keystores: new, import, show.",
    "credits": "Balance, deposit, withdraw, send.",
    "session": "Budgets that requests are paid from: open, list, top-up, close, login, proxy.",
    "model": "Publish, list, show, pull and verify models.",
    "ipfs": "Content-addressed files: add, cat, get, stat, verify.",
    "market": "The offers: model, layers, price, speed.",
    "receipt": "Show a request's receipts; verify them from the chain and IPFS alone.",
    "node": "A contributor's node: doctor, bench, register, stake, offer, start, earnings, claim, faults.",
    "gateway": "Run a region's gateway: start, status, settle.",
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of the same name (https://click.palletsprojects.com/en/stable/complex/)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(GROUPS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in GROUPS:
            return None
        command: click.Command = import_module(f"declai.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(GROUPS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
