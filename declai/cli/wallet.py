"""`declai wallet`: encrypted keystores."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from declai.chain.keystore import SCRYPT_STANDARD, create, import_key, read_password
from declai.cli.output import emit, fields, json_option
from declai.home import keystores
from declai.network import Network, default_path, load
from declai.wallets import ask_password, find_keystore, wallet_address

password_option = click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="DECLAI_PASSWORD_FILE",
    help="File with the password (mode 600); asked for when there is none.",
)


@click.group("wallet")
def command() -> None:
    """Encrypted keystores, in $DECLAI_HOME/keystores.

    \b
    declai wallet new alice
    declai wallet import bob --key-file bob.hex
    declai wallet show alice
    """


def _password(file: Path | None) -> str:
    return read_password(file) if file else ask_password("New password", confirm=True)


def _known_network() -> Network | None:
    return load() if default_path().exists() else None


def _print(name: str, address: str, path: Path, as_json: bool) -> None:
    data = {"name": name, "address": address, "keystore": str(path)}
    emit(data, as_json, lambda: fields(list(data.items())))


@command.command()
@click.argument("name")
@password_option
@json_option
def new(name: str, password_file: Path | None, as_json: bool) -> None:
    """Make a fresh key and keep it encrypted as NAME."""
    path = keystores() / f"{name}.json"
    account = create(path, _password(password_file), SCRYPT_STANDARD)
    _print(name, account.address, path, as_json)


@command.command("import")
@click.argument("name")
@click.option("--key-file", type=click.File("r"), help="File with the private key in hex, - for standard input.")
@password_option
@json_option
def import_(name: str, key_file: TextIO | None, password_file: Path | None, as_json: bool) -> None:
    """Keep an existing private key as NAME. The key comes from a file, a pipe or a prompt, never an argument."""
    secret = key_file.read(200) if key_file else ask_password("Private key (hex)")
    path = keystores() / f"{name}.json"
    account = import_key(secret, path, _password(password_file), SCRYPT_STANDARD)
    _print(name, account.address, path, as_json)


@command.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Print a wallet's address and where its keystore lies."""
    network = _known_network()
    path, _ = find_keystore(name, network)
    _print(name, wallet_address(name, network), path, as_json)
