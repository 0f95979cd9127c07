"""A node that is set up and does not run: what the doctor's checks are tried on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from declai.contributor.doctor import Finding
from declai.contributor.doctor.case import Case
from declai.contributor.doctor.examination import GROUPS, bounded
from declai.devnet import chain_setup
from declai.devnet.programs import write_settings
from declai.worker.node.settings import NodeSettings
from tests.support.desks import Desk
from tests.support.echo_network import Network
from tests.support.world import World


@dataclass
class Patient:
    """A node's files and settings. `find` runs one check on it, `settings` being changed as the test likes."""

    network: Network
    desk: Desk
    settings: dict[str, Any]
    member: chain_setup.Member

    @property
    def world(self) -> World:
        return self.desk.world

    @property
    def config(self) -> Path:
        """Its settings file, of these settings."""
        path = self.desk.home / "node.toml"
        write_settings(path, self.settings)
        return path

    def find(self, name: str, **changes: Any) -> Finding:
        check = next(checks[name] for checks in GROUPS.values() if name in checks)
        return bounded(check, Case(NodeSettings(**(self.settings | changes))), 30)
