"""The environment of each program of a devnet: the same settings that an operator would write for a real one."""

from __future__ import annotations

import sys

from declai.devnet.chain_setup import Member
from declai.devnet.layout import Layout
from declai.devnet.processes import RedisAddress


def python_module(module: str) -> list[str]:
    """The command that runs a module with this Python."""
    return [sys.executable, "-m", module]


def _shared(layout: Layout, rpc_url: str) -> dict[str, str]:
    return {
        "DECLAI_RPC_URL": rpc_url,
        "DECLAI_DEPLOYMENT": str(layout.deployment_file),
        "DECLAI_PASSWORD_FILE": str(layout.password_file),
    }


def gateway_env(
    layout: Layout, rpc_url: str, redis: RedisAddress, gateway: Member, settle_every_s: float
) -> dict[str, str]:
    """Variables of `declai gateway start`."""
    return _shared(layout, rpc_url) | {
        "DECLAI_HOST": "127.0.0.1",
        "DECLAI_PORT": gateway.url.rpartition(":")[2],
        "DECLAI_PUBLIC_URL": gateway.url,
        "DECLAI_LINK_BIND": gateway.endpoint,
        "DECLAI_DATA_DIR": str(layout.gateway),
        "DECLAI_OPERATOR": gateway.operator.address,
        "DECLAI_SIGNER_KEYSTORE": str(layout.keystore("gateway-signer")),
        "DECLAI_SESSION_KEYSTORE": str(layout.keystore("gateway-session")),
        "DECLAI_LINK_KEY": str(layout.link_key("gateway")),
        "DECLAI_REDIS_URL": redis.url,
        "DECLAI_NODE_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
        "DECLAI_SETTLE_EVERY_S": str(settle_every_s),
    }


def node_env(
    layout: Layout, rpc_url: str, gateway: Member, node: Member, number: int, model: str, num_threads: int
) -> dict[str, str]:
    """Variables of a node's program."""
    # Unless told otherwise, each node gets its share of the cores: more threads than cores slow every stage down.
    return _shared(layout, rpc_url) | {
        "DECLAI_OPERATOR": node.operator.address,
        "DECLAI_GATEWAY": gateway.operator.address,
        "DECLAI_GATEWAY_URL": gateway.url,
        "DECLAI_MODEL": model,
        "DECLAI_SIGNER_KEYSTORE": str(layout.keystore(f"node-{number}-signer")),
        "DECLAI_LINK_KEY": str(layout.link_key(f"node-{number}")),
        "DECLAI_LINK_BIND": node.endpoint,
        "DECLAI_DATA_DIR": str(layout.node(number)),
        "DECLAI_NUM_THREADS": str(num_threads),
    }
