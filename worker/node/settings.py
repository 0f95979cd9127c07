"""A node's settings: `DECLAI_*` variables or the TOML file that `DECLAI_CONFIG` names, checked at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from declai.chain.fields import Address
from declai.chain.settings import ChainSettings
from declai.protocol.wire import MAX_TOKENS
from declai.worker.limits import (
    IDLE_TIMEOUT_S,
    KEPT_ROWS_BYTES,
    MIXED_PREFILL_TOKENS,
    PEER_GRACE_S,
    PREFILL_CHUNK_TOKENS,
)
from declai.worker.model.threads import pick_num_threads

GIB = 2**30


class NodeSettings(ChainSettings):
    """One node. `data_dir` holds its store, its blocks and shards, and its status file.

    `link_bind` is where the link listens on this machine; the registry has the endpoint under which others reach it. A
    node that is registered at `relay` listens nowhere: what is sent to it comes through the gateway.
    """

    operator: Address | None = Field(default=None, description="who registered this node; else the registry is asked")
    gateway: Address | None = Field(default=None, description="operator address of the gateway to join")
    gateway_url: str | None = Field(default=None, pattern=r"^https?://[^/?#]+$", description="needed without `gateway`")
    model: str = Field(min_length=1, max_length=200, description="name of the model to serve")
    numeric_profile: str | None = Field(
        default=None, pattern=r"^[a-z0-9]{1,16}$", description="of the offer to serve, when the node has several"
    )
    data_dir: Path = Path("node-data")
    signer_keystore: Path = Path("signer.json")
    password_file: Path = Path("password")
    link_key: Path = Path("link.key")
    link_bind: str = Field(default="tcp://127.0.0.1:8082", pattern=r"^tcp://")
    ipfs_peers: tuple[Annotated[str, Field(pattern=r"^https?://")], ...] = ()
    device: str = Field(default="cpu", pattern=r"^(cpu|mps|(cuda|rocm|xpu)(:[0-9]{1,2})?)$")
    cuda_graphs: bool = Field(default=True, description="record decode steps, where `device` is CUDA")
    num_threads: int = Field(
        default=0, ge=0, le=1024, description="of the model; 0: the cores that are this node's own"
    )
    max_jobs: int = Field(default=32, ge=1, le=1024)
    max_context_tokens: int = Field(default=32_768, ge=2, le=MAX_TOKENS)
    max_cache_bytes: int = Field(default=4 * GIB, ge=2**20)
    prefill_chunk_tokens: int = Field(
        default=PREFILL_CHUNK_TOKENS, ge=1, le=2**16, description="most prompt tokens in one step"
    )
    mixed_prefill_tokens: int = Field(
        default=MIXED_PREFILL_TOKENS,
        ge=1,
        le=2**16,
        description="the same beside sequences that wait for their next token",
    )
    prefix_reuse: bool = Field(default=True, description="whether a payer's later requests reuse what earlier computed")
    kept_rows_bytes: int = Field(
        default=KEPT_ROWS_BYTES, ge=0, description="memory for what was sent on, so that it can be sent again"
    )
    kept_rows_disk_bytes: int = Field(default=4 * GIB, ge=0, description="the same on disk, for the oldest of it")
    metrics_port: int = Field(default=0, ge=0, le=65535, description="of GET /metrics on 127.0.0.1; 0: none")
    idle_timeout_s: float = Field(default=IDLE_TIMEOUT_S, gt=0)
    peer_grace_s: float = Field(default=PEER_GRACE_S, gt=0)

    @model_validator(mode="after")
    def _check_gateway(self) -> NodeSettings:
        if self.gateway is None and self.gateway_url is None:
            raise ValueError("no gateway to join: set DECLAI_GATEWAY (its address) or DECLAI_GATEWAY_URL")
        return self

    @property
    def status_file(self) -> Path:
        """What `declai node status` reads."""
        return self.data_dir / "status.json"

    def model_threads(self) -> int:
        """Threads for the model."""
        return self.num_threads or pick_num_threads()
