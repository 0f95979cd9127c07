"""Finding and unlocking wallets: by name in the network file or the keystore folder, or by path."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from eth_account.signers.local import LocalAccount

from declai.chain.keystore import address_of, open_keystore, read_password
from declai.errors import WalletError
from declai.home import keystores
from declai.network import Network


def find_keystore(name: str, network: Network | None) -> tuple[Path, Path | None]:
    """(keystore, password file if known) of a wallet.

    Raises:
        WalletError: nothing goes by that name.
    """
    if network is not None and name in network.wallets:
        wallet = network.wallets[name]
        return Path(wallet.keystore), Path(wallet.password_file)
    for path in (keystores() / f"{name}.json", Path(name)):
        if path.is_file():
            return path, None
    known = sorted({*(network.wallets if network else ()), *(path.stem for path in keystores().glob("*.json"))})
    raise WalletError(
        f"no wallet {name!r}; there is: {', '.join(known) or 'none'}. Make one with `declai wallet new {name}`"
    )


def wallet_address(name: str, network: Network | None) -> str:
    """The address of a wallet, without unlocking it."""
    path, _ = find_keystore(name, network)
    address = address_of(path)
    if address is None:
        raise WalletError(f"{path} does not name its address")
    return address


def ask_password(prompt: str, *, confirm: bool = False) -> str:
    """A password from the terminal; never echoed.

    Raises:
        WalletError: there is no terminal, as under cron.
    """
    try:
        password: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise WalletError(
            f"nobody is here to ask ({prompt}): name a file that holds it with --password-file or DECLAI_PASSWORD_FILE"
        ) from None
    return password


def unlock(name: str, network: Network | None, password_file: Path | None = None) -> LocalAccount:
    """Open a wallet with the password of a file, or ask for it."""
    path, known_file = find_keystore(name, network)
    file = password_file or known_file
    password = read_password(file) if file else ask_password(f"Password of {path.name}")
    return open_keystore(path, password)
