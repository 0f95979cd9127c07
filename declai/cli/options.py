"""Options and arguments that many commands share: which network, which wallet, which request, how much."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from eth_utils.address import is_address, to_checksum_address

from declai.chain.errors import InvalidAmount
from declai.chain.pricing import UNITS_PER_CREDIT, parse_credits

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
MAX_UNITS = 10**20 * UNITS_PER_CREDIT  # the contracts have 128 bits for an amount


def network_option(function: Decorated) -> Decorated:
    """`--network FILE`; the default is DECLAI_NETWORK, then the local devnet."""
    return click.option(
        "--network",
        "network_path",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Network file. [default: $DECLAI_NETWORK, else the local devnet]",
    )(function)


def _wallet_options(default: str) -> Callable[[Decorated], Decorated]:
    def decorate(function: Decorated) -> Decorated:
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
            default=default,
            show_default=True,
            help="A wallet of the network file, of the keystore folder, or a keystore file.",
        )(function)

    return decorate


def wallet_options(function: Decorated) -> Decorated:
    """`--wallet NAME_OR_FILE` and `--password-file FILE`, for requesters."""
    return _wallet_options("requester")(function)


def operator_options(function: Decorated) -> Decorated:
    """`--wallet NAME_OR_FILE` and `--password-file FILE`, for the operators of nodes."""
    return _wallet_options("operator")(function)


class Credits(click.ParamType[int]):
    """An amount in credits on the command line; base units in the program. `least` in base units."""

    name = "credits"

    def __init__(self, least: int = 0) -> None:
        self._least = least

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            units = parse_credits(str(value))
        except InvalidAmount as error:
            self.fail(str(error), param, ctx)
        if units < self._least:
            self.fail(f"{value!r} credits: name more than nothing", param, ctx)
        if units >= MAX_UNITS:
            self.fail(f"{value!r} credits are more than contracts count: name less than 10^20", param, ctx)
        return units


CREDITS = Credits()
POSITIVE_CREDITS = Credits(least=1)


def _address(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    if not is_address(value):
        raise click.BadParameter(f"{value!r} is not an address: 0x and 40 hexadecimal digits, with a right checksum")
    return str(to_checksum_address(value))


def address_argument(name: str, *, required: bool = True) -> Callable[[Decorated], Decorated]:
    """An argument that is an address; checksummed."""
    return click.argument(name, callback=_address, required=required)


def request_digest(
    ctx: click.Context, parameter: click.Parameter, value: str | tuple[str, ...]
) -> str | tuple[str, ...]:
    """Callback of an option or argument that names requests by their hashes."""
    if not isinstance(value, str):
        return tuple(str(request_digest(ctx, parameter, one)) for one in value)
    text = value.lower()
    if len(text) != 66 or not text.startswith("0x") or any(c not in "0123456789abcdef" for c in text[2:]):
        raise click.BadParameter("a request is named by its hash, 0x and 64 hexadecimal digits (x-declai-request)")
    return text


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
