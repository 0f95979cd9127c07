"""Settings that every program of DeCLAI shares: where the chain is and which contracts are meant.

From the environment (`DECLAI_*`) or a TOML file named by `DECLAI_CONFIG`; the environment wins. Worker and gateway add
their own in classes below this one.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class ChainSettings(BaseSettings):
    """Where the chain is. `deployment` is the JSON file that `chain.deploy` wrote."""

    model_config = SettingsConfigDict(env_prefix="DECLAI_", extra="ignore", validate_default=True)

    rpc_url: str = Field(default="http://127.0.0.1:8545", pattern=r"^https?://")
    deployment: Path = Path("deployment.json")

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
        return (*sources, TomlConfigSettingsSource(settings_cls, Path(file))) if file else sources
