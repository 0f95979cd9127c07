"""The changelog keeps its form (keepachangelog.com), and its newest release is this code's version."""

from __future__ import annotations

import re
from datetime import date

import declai
from declai.api.app import create_app
from declai.api.settings import GatewaySettings
from tests.docs.documents import ROOT

TEXT = (ROOT / "CHANGELOG.md").read_text()
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_releases_fall_from_the_newest_which_is_this_version() -> None:
    releases = re.findall(r"^## \[(\d+)\.(\d+)\.(\d+)\] - (\S+)$", TEXT, re.M)
    versions = [tuple(map(int, release[:3])) for release in releases]
    dates = [date.fromisoformat(release[3]) for release in releases]
    assert versions == sorted(versions, reverse=True)
    assert dates == sorted(dates, reverse=True)
    assert declai.__version__ == ".".join(map(str, versions[0]))
    assert create_app(GatewaySettings()).openapi()["info"]["version"] == declai.__version__


def test_every_change_stands_under_its_kind() -> None:
    assert set(re.findall(r"^## (.*?)(?: - .*)?$", TEXT, re.M)) >= {"[Unreleased]"}
    for section in re.split(r"^## ", TEXT, flags=re.M)[1:]:
        kinds = re.findall(r"^### (.*)$", section, re.M)
        assert kinds == [kind for kind in KINDS if kind in kinds]
        assert not re.search(r"\A.*\n+- ", section)
