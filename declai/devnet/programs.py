"""The settings file of each program of a devnet: what an operator would write for a real one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from declai.devnet.chain_setup import Member
from declai.devnet.layout import DevnetLayout
from declai.devnet.processes import RedisAddress

Settings = dict[str, str | int | float]


def python_module(module: str) -> list[str]:
    """The command that runs a module with this Python."""
    return [sys.executable, "-m", module]


def write_settings(path: Path, settings: Settings) -> dict[str, str]:
    """Write a TOML file for its owner alone; returns the environment that names it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    # JSON's strings and numbers are TOML's too.
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    return {"DECLAI_CONFIG": str(path)}


def _shared(layout: DevnetLayout, rpc_url: str) -> Settings:
    return {
        "rpc_url": rpc_url,
        "deployment": str(layout.deployment_file),
        "password_file": str(layout.password_file),
    }


def gateway_settings(
    layout: DevnetLayout, rpc_url: str, redis: RedisAddress, gateway: Member, settle_every_s: float
) -> Settings:
    """Settings of `declai gateway start`."""
    return _shared(layout, rpc_url) | {
        "host": "127.0.0.1",
        "port": int(gateway.url.rpartition(":")[2]),
        "public_url": gateway.url,
        "link_bind": gateway.endpoint,
        "data_dir": str(layout.gateway),
        "operator": gateway.operator.address,
        "signer_keystore": str(layout.keystore("gateway-signer")),
        "session_keystore": str(layout.keystore("gateway-session")),
        "link_key": str(layout.link_key("gateway")),
        "redis_url": redis.url,
        "node_redis_url": f"redis://127.0.0.1:{redis.port}/0",
        "settle_every_s": settle_every_s,
    }


def node_settings(
    layout: DevnetLayout, rpc_url: str, gateway: Member, node: Member, number: int, model: str, num_threads: int
) -> Settings:
    """Settings of `declai node start`."""
    return _shared(layout, rpc_url) | {
        "operator": node.operator.address,
        "gateway": gateway.operator.address,
        "gateway_url": gateway.url,
        "model": model,
        "signer_keystore": str(layout.keystore(f"node-{number}-signer")),
        "link_key": str(layout.link_key(f"node-{number}")),
        "link_bind": node.endpoint,
        "data_dir": str(layout.node(number)),
        "num_threads": num_threads,
    }
