"""The status file of a node: what `declai node status` shows. Its `written_at` tells whether the node is alive."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path

from declai.worker.errors import NodeStartError, WorkerError
from declai.worker.job.engine_thread import EngineThread
from declai.worker.job.store import NodeStore
from declai.worker.node.living import living_node

log = logging.getLogger(__name__)

EVERY_S = 1.0


class StatusFile:
    """JSON, replaced once a second while the block runs: state `starting`, `serving`, `draining` or `stopped`."""

    def __init__(self, path: Path, description: dict[str, object], supervised_since: float) -> None:
        """`supervised_since`: Unix seconds since when starts are tried again; `starting_since` is in the file until
        one of them serves.

        `another`: the status of another node that lived here when this one began.
        """
        self._path = path
        self._supervised_since = supervised_since
        self._starting_since: int | None = None
        self.another = living_node(path)
        self._description = {"pid": os.getpid(), **description}
        self._sources: tuple[EngineThread, NodeStore] | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def follow(self, engine_thread: EngineThread, store: NodeStore) -> None:
        """The node serves from now on: tell what these say."""
        self._sources = (engine_thread, store)
        self._starting_since = None
        self._try_to_write()

    def follow_nothing(self) -> None:
        """The node stops serving; the sources may be closed."""
        self._sources = None

    def __enter__(self) -> StatusFile:
        """Raises NodeStartError when the file cannot be written."""
        self._starting_since = int(self._first_start())
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._write("starting")
        except OSError as error:
            raise NodeStartError(
                f"cannot write {self._path}: {error.strerror}: give this user the right to, or set another data_dir"
            ) from error
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._write("stopped")

    def _first_start(self) -> float:
        """When the first of the starts began that failed up to now, under one supervisor."""
        try:
            return max(float(json.loads(self._path.read_text())["starting_since"]), self._supervised_since)
        except (OSError, ValueError, KeyError, TypeError):
            return time.time()

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._try_to_write()

    def _try_to_write(self) -> None:
        with self._lock:
            try:
                self._write("starting")
            except (OSError, WorkerError) as error:  # a node serves on without its status file
                log.warning("cannot write %s: %s", self._path, error)

    def _write(self, state: str) -> None:
        fields: dict[str, object] = {**self._description, "state": state, "written_at": int(time.time())}
        if self._starting_since is not None:
            fields["starting_since"] = self._starting_since
        sources = self._sources
        if sources is not None:
            engine_thread, store = sources
            seen, earned = engine_thread.status(), store.earnings()
            fields["state"] = "draining" if seen.draining else "serving"
            fields["engine_thread"] = asdict(seen)
            fields["earnings"] = {**asdict(earned), "total_cost": str(earned.total_cost)}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(fields, indent=2) + "\n")
        fresh.replace(self._path)
