"""The status file of a node: what `declai node status` shows. Its `written_at` tells whether the node is alive."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path

from declai.worker.errors import WorkerError
from declai.worker.job.engine_thread import EngineThread
from declai.worker.job.store import NodeStore

log = logging.getLogger(__name__)

EVERY_S = 1.0


class StatusFile:
    """JSON, replaced once a second while the block runs: state `starting`, `serving`, `draining` or `stopped`."""

    def __init__(self, path: Path, description: dict[str, object]) -> None:
        self._path = path
        self._description = {"pid": os.getpid(), **description}
        self._sources: tuple[EngineThread, NodeStore] | None = None
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def follow(self, engine_thread: EngineThread, store: NodeStore) -> None:
        """The node serves from now on: tell what these say."""
        self._sources = (engine_thread, store)
        self._try_to_write()

    def follow_nothing(self) -> None:
        """The node stops serving; the sources may be closed."""
        self._sources = None

    def __enter__(self) -> StatusFile:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write("starting")
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        self._write("stopped")

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
