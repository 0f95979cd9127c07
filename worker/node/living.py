"""Whether a node lives and does its work, by the status file that it writes once a second."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

STATUS_AGE_S = 10.0
MAX_START_S = 600.0
OLDER_NODE_RUNS = "the node of the older release still runs: stop it, copy node.db, then start the new one"
LOOK_AGAIN_S = 2.5  # a node writes its status once a second
CLOCK_STEP_S = 2.0  # the file has whole seconds


def living_node(status_file: Path) -> dict[str, Any] | None:
    """The status that another process's node wrote in the last seconds; None when none runs.

    A process id says nothing of a node in another container. Where it does not show a living process here, what counts
    is whether the file is written anew: that takes LOOK_AGAIN_S.
    """
    status = _fresh(status_file)
    if status is None or _runs_here(status):
        return status
    time.sleep(LOOK_AGAIN_S)
    again = _fresh(status_file)
    return again if again is not None and again["written_at"] != status["written_at"] else None


def _fresh(status_file: Path) -> dict[str, Any] | None:
    """A status of the last seconds that does not say `stopped`; None where there is none that can be read."""
    try:
        status: dict[str, Any] = json.loads(status_file.read_text())
        is_fresh = time.time() - status["written_at"] < STATUS_AGE_S and status["state"] != "stopped"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return status if is_fresh else None


def _runs_here(status: dict[str, Any]) -> bool:
    """Whether another process of this machine has the status's process id."""
    try:
        os.kill(int(status["pid"]), 0)
    except PermissionError:  # somebody else's process, but alive
        return True
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return False
    return bool(status["pid"] != os.getpid())


def illness(status: Any, max_age_s: float) -> str:
    """What is wrong with a node that wrote this status, in one sentence; "" when it is well."""
    try:
        state, now = str(status["state"]), time.time()
        age_s = now - float(status["written_at"])
        begun_s = now - float(status.get("starting_since", now))
        idle_s = now - float(status.get("engine_thread", {}).get("last_turn_at", now))
    except (AttributeError, KeyError, TypeError, ValueError):
        return "this is no status of a node: is another program's file in its place?"
    if age_s < -CLOCK_STEP_S:
        return f"the status is from {-age_s:.0f} s in the future: was the clock put back?"
    if state == "stopped":
        return "the node is stopped"
    if age_s > max_age_s:
        return f"the node is {state}, and has been silent for {age_s:.0f} s"
    if state == "starting" and begun_s > MAX_START_S:
        return f"the node has been starting for {begun_s:.0f} s: its log says why"
    if idle_s > max_age_s:
        return f"the node is {state}, and its engine thread has hung for {idle_s:.0f} s"
    return ""
