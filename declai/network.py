"""The network file: where a network's chain, contracts and gateway are, and which wallets this machine has for it.

`declai devnet up` writes one (`devnet.json`); the operator of any other network hands out one of the same shape,
without wallets, nodes and api_key.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from declai.errors import NetworkNotFound
from declai.home import home

ENV_VAR = "DECLAI_NETWORK"


class ChainInfo(BaseModel):
    rpc_url: str
    chain_id: int = Field(gt=0)
    block: int = Field(default=0, ge=0, description="block of the deployment: where an event index starts")


class GatewayInfo(BaseModel):
    url: str
    address: str | None = Field(default=None, description="operator address, when the file names it")


class RedisInfo(BaseModel):
    url: str


class ModelInfo(BaseModel):
    id: str
    name: str
    manifest_cid: str
    path: str


class WalletInfo(BaseModel):
    address: str
    keystore: str
    password_file: str


class NodeInfo(BaseModel):
    address: str
    layers: tuple[int, int]
    pid: int
    endpoint: str


class Network(BaseModel):
    """`devnet.json` / `network.json`. Unknown keys are kept, so that newer files open in older clients."""

    model_config = ConfigDict(extra="allow")

    chain: ChainInfo
    contracts: dict[str, str]
    gateway: GatewayInfo
    redis: RedisInfo | None = None
    model: ModelInfo | None = None
    wallets: dict[str, WalletInfo] = {}
    nodes: list[NodeInfo] = []
    api_key: str | None = Field(default=None, repr=False)


def default_path() -> Path:
    """`$DECLAI_NETWORK`, else the devnet's file in the home folder."""
    named = os.environ.get(ENV_VAR)
    return Path(named).expanduser() if named else home() / "devnet" / "devnet.json"


def load(path: Path | None = None) -> Network:
    """Read a network file.

    Raises:
        NetworkNotFound: the file is missing or does not have the shape.
    """
    path = path or default_path()
    try:
        return Network.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NetworkNotFound(
            f"no network file at {path}: start a network with `declai devnet up`, "
            f"or name yours with --network FILE or {ENV_VAR}"
        ) from None
    except ValidationError as error:
        raise NetworkNotFound(f"{path} is not a network file: {error}") from None


def write(network: Network, path: Path) -> None:
    """Write atomically and for the owner alone: the file names passwords' places and holds an API key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(network.model_dump_json(indent=2, exclude_none=True) + "\n")
    temporary.replace(path)
