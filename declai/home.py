"""Where a user's files lie: `DECLAI_HOME` (default `~/.declai`) with keystores, sessions and networks."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The user's DeCLAI folder, made with access for its owner alone."""
    path = Path(os.environ.get("DECLAI_HOME") or Path.home() / ".declai").expanduser()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def keystores() -> Path:
    path = home() / "keystores"
    path.mkdir(mode=0o700, exist_ok=True)
    return path
