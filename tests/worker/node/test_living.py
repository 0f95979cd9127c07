"""Whether a node lives, told by its status file: also of a node whose process nobody here can see."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from declai.worker.node import living
from declai.worker.node.living import living_node

NOBODY = 2**22 + 1  # above every process id of Linux


def write(path: Path, pid: int, written_at: float, state: str = "serving") -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"pid": pid, "written_at": int(written_at), "state": state}))
    fresh.replace(path)


@contextmanager
def written_anew(path: Path, pid: int) -> Iterator[None]:
    """As a node in another container does it: its process id says nothing here."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.2):
            write(path, pid, time.time())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("pid", [NOBODY, os.getpid()], ids=["not seen here", "the same number"])
def test_a_node_in_another_container_lives_while_it_writes(tmp_path: Path, pid: int) -> None:
    path = tmp_path / "status.json"
    write(path, pid, time.time())
    with written_anew(path, pid):
        assert living_node(path) is not None


@pytest.mark.parametrize("pid", [NOBODY, os.getpid()], ids=["not seen here", "the same number"])
def test_one_that_was_killed_a_moment_ago_does_not(tmp_path: Path, pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "LOOK_AGAIN_S", 0.1)
    path = tmp_path / "status.json"
    write(path, pid, time.time())
    assert living_node(path) is None


def test_neither_does_one_that_stopped_or_fell_silent(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write(path, os.getppid(), time.time(), "stopped")
    assert living_node(path) is None
    write(path, os.getppid(), time.time() - 60)
    assert living_node(path) is None


def test_a_file_that_cannot_be_read_names_nobody(tmp_path: Path) -> None:
    assert living_node(tmp_path / "status.json") is None
    (tmp_path / "status.json").mkdir()
    assert living_node(tmp_path / "status.json") is None


def test_the_process_of_this_machine_is_seen_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "LOOK_AGAIN_S", 1e9)
    path = tmp_path / "status.json"
    write(path, os.getppid(), time.time())
    assert living_node(path) is not None
