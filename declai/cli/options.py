"""Options that many commands share: which network, which wallet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def network_option(function: Decorated) -> Decorated:
    """`--network FILE`; the default is DECLAI_NETWORK, then the local devnet."""
    return click.option(
        "--network",
        "network_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Network file. [default: $DECLAI_NETWORK, else the local devnet]",
    )(function)


def wallet_options(function: Decorated) -> Decorated:
    """`--wallet NAME_OR_FILE` and `--password-file FILE`."""
    function = click.option(
        "--password-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="DECLAI_PASSWORD_FILE",
        help="File with the keystore's password; asked for when there is none.",
    )(function)
    return click.option(
        "--wallet",
        "wallet_name",
        envvar="DECLAI_WALLET",
        default="requester",
        show_default=True,
        help="A wallet of the network file, of the keystore folder, or a keystore file.",
    )(function)


def config_option(function: Decorated) -> Decorated:
    """`--config FILE` for programs with settings: the same as DECLAI_CONFIG."""

    def remember(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> None:
        if value is not None:
            os.environ["DECLAI_CONFIG"] = str(value)

    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=remember,
        expose_value=False,
        help="TOML file with the settings. [default: $DECLAI_CONFIG]",
    )(function)
