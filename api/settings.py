"""The gateway's settings: `DECLAI_*` variables or the TOML file that `DECLAI_CONFIG` names, checked at start."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from declai.chain.settings import ChainSettings
from declai.protocol.wire import PromptFormat

MIB = 2**20


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class GatewaySettings(ChainSettings):
    """One gateway. `data_dir` holds its store, its blocks and its index; its three keys lie where it is said below."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    behind_tls: bool = Field(default=False, description="a proxy in front ends TLS: needed beyond loopback")
    private_network: bool = Field(
        default=False, description="Redis is reached over a network that is this gateway's own"
    )
    public_url: str = Field(default="http://127.0.0.1:8080", pattern=r"^https?://[^/?#]+$")
    link_bind: str = Field(default="tcp://127.0.0.1:8081", pattern=r"^tcp://")
    relay: bool = Field(default=True, description="pass frames on to nodes that nobody can connect to")
    relay_node_bytes: int = Field(default=64 * MIB, ge=MIB, description="that may wait for one such node")
    relay_all_bytes: int = Field(default=256 * MIB, ge=MIB, description="that may wait for all such nodes")
    data_dir: Path = Path("gateway-data")
    operator: str = Field(default="", description="address of the operator that registered this gateway")
    signer_keystore: Path = Path("signer.json")
    session_keystore: Path = Path("session.json")
    link_key: Path = Path("link.key")
    password_file: Path = Path("password")
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    node_redis_url: str | None = Field(default=None, description="redis URL, without user, that nodes are given")
    database_url: SecretStr | None = Field(default=None, description="SQLite in data_dir unless given")
    fee_bps: int = Field(default=500, ge=0, le=2000)
    settle_every_s: float = Field(default=600.0, gt=0)
    confirmation_depth: int = Field(default=1, ge=1, le=1000)
    max_claims_per_batch: int = Field(default=200, ge=1, le=1000)
    max_receipts_per_batch: int = Field(default=20_000, ge=1)
    max_body_bytes: int = Field(default=2 * 2**20, ge=1024)
    max_unacknowledged: int = Field(default=16, ge=1, le=64)
    max_requests_running: int = Field(default=64, ge=1)
    api_key_days: int = Field(default=30, ge=1, le=365)
    ready_timeout_s: float = Field(default=10.0, gt=0)
    stall_timeout_s: float = Field(default=60.0, gt=0)
    receipt_timeout_s: float = Field(default=10.0, gt=0)
    coarsest_prompt_format: PromptFormat = Field(
        default="profile", description="to which a prompt's hidden states may be rounded for slow links: float16, int8"
    )

    @model_validator(mode="after")
    def _refuse_unsafe(self) -> GatewaySettings:
        if not is_loopback(self.host) and not self.behind_tls:
            raise ValueError(
                f"host {self.host} is reachable from outside and API keys would travel in the clear: "
                "put a TLS proxy in front and set DECLAI_BEHIND_TLS=true, or listen on 127.0.0.1"
            )
        public = urlsplit(self.public_url)
        if public.scheme == "http" and not is_loopback(public.hostname or ""):
            raise ValueError(
                f"public_url {self.public_url} has no TLS, API keys would travel in the clear: "
                "publish an https:// address"
            )
        broker = urlsplit(self.redis_url.get_secret_value())
        if broker.scheme == "redis" and not is_loopback(broker.hostname or "localhost") and not self.private_network:
            raise ValueError(
                f"Redis at {broker.hostname} would get passwords and tasks in the clear: use a rediss:// URL, or set "
                "DECLAI_PRIVATE_NETWORK=true when nobody else is on that network"
            )
        return self

    @property
    def domain(self) -> str:
        """Host and port that sign-in messages (EIP-4361) must name."""
        return urlsplit(self.public_url).netloc

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the durable store."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'gateway.db'}"

    @property
    def blocks_dir(self) -> Path:
        return self.data_dir / "blocks"
