"""The doctor reads the node's store and leaves it as it is."""

from __future__ import annotations

from pathlib import Path

from declai.contributor.doctor.case import Case
from declai.contributor.doctor.finding import Level
from declai.contributor.doctor.resources import store
from declai.worker.job.store import NodeStore
from declai.worker.node.settings import NodeSettings
from tests.support.old_databases import copy_of


def case_of(folder: Path) -> Case:
    return Case(NodeSettings(model="m", gateway_url="http://127.0.0.1:9", data_dir=folder))


def test_a_store_of_any_state_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    assert store(case_of(tmp_path)).level is Level.OK
    copy_of("v1/node.db", tmp_path)
    before = path.read_bytes()
    found = store(case_of(tmp_path))
    assert (found.level, found.value) == (Level.WARNING, f"{path} has version 0, this program writes version 2")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["node.db"]
    opened = NodeStore(path)
    assert store(case_of(tmp_path)).value == f"{path} has version 2"
    opened.close()
    path.write_bytes(b"no database" * 1000)
    assert store(case_of(tmp_path)).level is Level.PROBLEM
