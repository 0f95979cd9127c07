"""Where the files of a devnet lie, and its wallets."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from eth_account.signers.local import LocalAccount

from declai.chain.keystore import SCRYPT_LIGHT, create


@dataclass(frozen=True)
class DevnetLayout:
    """The folder of one devnet."""

    folder: Path

    @property
    def network_file(self) -> Path:
        return self.folder / "devnet.json"

    @property
    def deployment_file(self) -> Path:
        return self.folder / "deployment.json"

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    @property
    def pid_file(self) -> Path:
        return self.folder / "devnet.pid"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def gateway(self) -> Path:
        return self.folder / "gateway"

    def keystore(self, name: str) -> Path:
        return self.folder / "keystores" / f"{name}.json"

    def link_key(self, name: str) -> Path:
        return self.folder / "keystores" / f"{name}.link"

    def node(self, number: int) -> Path:
        return self.folder / "nodes" / str(number)

    @property
    def gateway_config(self) -> Path:
        return self.folder / "gateway.toml"

    def node_config(self, number: int) -> Path:
        return self.folder / f"node-{number}.toml"

    def make_password(self) -> str:
        """One password for all wallets of the devnet, in a file for its owner alone."""
        password = secrets.token_urlsafe(24)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(password + "\n")
        return password


class Wallets:
    """Fresh wallets of a devnet, by name. Their password lies beside them, so their scrypt is a light one."""

    def __init__(self, layout: DevnetLayout) -> None:
        self._layout = layout
        self._password = layout.make_password()
        self.accounts: dict[str, LocalAccount] = {}

    def new(self, name: str) -> LocalAccount:
        account = create(self._layout.keystore(name), self._password, SCRYPT_LIGHT)
        self.accounts[name] = account
        return account
