"""What the commands about money share: the network's chain and the wallet as a payer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from declai.chain.client import Chain
from declai.chain.keystore import read_password
from declai.client.aio import chain_of
from declai.client.book import SessionBook
from declai.client.payer import Payer
from declai.home import home
from declai.network import Network, load
from declai.wallets import ask_password, find_keystore, unlock


@dataclass(frozen=True)
class Paying:
    """A wallet on a network."""

    network: Network
    chain: Chain
    payer: Payer


def open_paying(network_path: Path | None, wallet: str, password_file: Path | None) -> Paying:
    """The wallet that the options name. Nothing is unlocked yet."""
    network = load(network_path)
    chain = chain_of(network)
    chain.check()
    keystore, known_file = find_keystore(wallet, network)
    file = password_file or known_file
    payer = Payer(
        chain,
        SessionBook(home() / "sessions.db"),
        gateway_url=network.gateway.url,
        keystore=keystore,
        password=lambda: read_password(file) if file else ask_password(f"Password of {keystore.name}"),
        unlock=lambda: unlock(wallet, network, password_file),
    )
    return Paying(network, chain, payer)
