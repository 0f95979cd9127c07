"""Settings that every program of DeCLAI shares: where the chain is and which contracts are meant.

From the environment (`DECLAI_*`) or a TOML file named by `DECLAI_CONFIG`; the environment wins. Worker and gateway add
their own in classes below this one. What no program knows is refused: a misspelt setting must not be one left out.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

PREFIX = "DECLAI_"
# Of all programs together: they share a machine, its variables, and sometimes a file.
SETTINGS = frozenset(
    [
        "rpc_url",
        "deployment",
        "operator",
        "gateway",
        "gateway_url",
        "model",
        "numeric_profile",
        "data_dir",
        "signer_keystore",
        "password_file",
        "link_key",
        "link_bind",
        "ipfs_peers",
        "device",
        "cuda_graphs",
        "num_threads",
        "max_jobs",
        "max_context_tokens",
        "max_cache_bytes",
        "prefill_chunk_tokens",
        "mixed_prefill_tokens",
        "prefix_reuse",
        "metrics_port",
        "idle_timeout_s",
        "peer_grace_s",
        "kept_rows_bytes",
        "kept_rows_disk_bytes",
        "host",
        "port",
        "behind_tls",
        "private_network",
        "public_url",
        "relay",
        "relay_node_bytes",
        "relay_all_bytes",
        "session_keystore",
        "redis_url",
        "node_redis_url",
        "database_url",
        "fee_bps",
        "settle_every_s",
        "confirmation_depth",
        "max_claims_per_batch",
        "max_receipts_per_batch",
        "max_body_bytes",
        "max_unacknowledged",
        "max_requests_running",
        "api_key_days",
        "ready_timeout_s",
        "stall_timeout_s",
        "receipt_timeout_s",
        "coarsest_prompt_format",
    ]
)
# Variables that are no settings of a program that serves: where things are, and how a command is called.
OTHER_VARIABLES = frozenset({"config", "home", "network", "wallet", "api_key", "blocks", "debug"})
# Settings of earlier releases, and what became of them.
FORMER_SETTINGS = {"max_sessions": "it is max_jobs now", "heartbeat_s": "a gateway tells its nodes how often to report"}


# What Kubernetes adds to the name of a Service, where it tells of one: the first is always there.
SERVICE_HOST = "_service_host"
SERVICE_VARIABLE = r"_service_(host|port(_\w+)?)|_port(_\d+_(tcp|udp|sctp)(_(proto|port|addr))?)?"


def explain(error: ValidationError) -> str:
    """What is wrong with settings, in one line. Values stay out of it: some are secret."""
    found = [": ".join([*map(str, one["loc"]), one["msg"].removeprefix("Value error, ")]) for one in error.errors()]
    return "; ".join(found)


def _refusal(name: str, prefix: str, known: Collection[str]) -> str:
    """Why a setting is refused that is written with this prefix; one of the `known` ones may be meant."""

    def written(setting: str) -> str:
        return prefix + setting.upper() if prefix else setting

    if name in FORMER_SETTINGS:
        return f"{written(name)} is no setting any more: {FORMER_SETTINGS[name]}"
    near = difflib.get_close_matches(name, known, 1) or difflib.get_close_matches(name, SETTINGS, 1)
    return f"{written(name)} is no setting" + (f": is {written(near[0])} meant?" if near else "")


def _of_services(variables: Collection[str]) -> set[str]:
    """Those that Kubernetes sets for Services whose names begin with `declai-`: no settings, and nobody's mistake."""
    services = [name.removesuffix(SERVICE_HOST) for name in variables if name.endswith(SERVICE_HOST)]
    patterns = [re.compile(re.escape(service) + f"({SERVICE_VARIABLE})") for service in services]
    return {name for name in variables if any(pattern.fullmatch(name) for pattern in patterns)}


class ChainSettings(BaseSettings):
    """Where the chain is. `deployment` is the JSON file that `chain.deploy` wrote."""

    model_config = SettingsConfigDict(env_prefix="DECLAI_", extra="ignore", validate_default=True)

    rpc_url: str = Field(default="http://127.0.0.1:8545", pattern=r"^https?://")
    deployment: Path = Path("deployment.json")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: dict[str, Any]) -> dict[str, Any]:
        variables = {
            name.lower().removeprefix(PREFIX.lower()) for name in os.environ if name.upper().startswith(PREFIX)
        }
        unknown = variables - SETTINGS - OTHER_VARIABLES - _of_services(variables)
        refused = [
            *(_refusal(name, "", cls.model_fields) for name in sorted(values.keys() - SETTINGS - variables)),
            *(_refusal(name, PREFIX, cls.model_fields) for name in sorted(unknown)),
        ]
        if refused:
            raise ValueError("; ".join(refused))
        return values

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get("DECLAI_CONFIG")
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        return (*sources, _file_source(settings_cls, Path(file))) if file else sources


def _file_source(settings: type[BaseSettings], file: Path) -> TomlConfigSettingsSource:
    """Raises ValueError, with a sentence."""
    if not file.is_file():
        raise ValueError(f"DECLAI_CONFIG names {file}, which is no file")
    try:
        return TomlConfigSettingsSource(settings, file)
    except ValueError as error:
        raise ValueError(f"{file} is no TOML: {error}") from error
