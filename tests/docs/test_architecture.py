"""The architecture page is true: its rooms, folders, threads and frames are those of the tree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from declai.protocol import wire
from tests.docs.documents import PLANNED, ROOT, code_spans, table

PAGE = ROOT / "docs" / "architecture.md"


def test_every_folder_of_the_big_rooms_is_named_and_those_planned_are_not_there() -> None:
    cells = [cells[0] for cells in table(PAGE, "folder")]
    planned = {code_spans(cell)[0] for cell in cells if cell.endswith(PLANNED)}
    named = {code_spans(cell)[0] for cell in cells} - planned
    big = {name.split("/")[0] for name in named}
    assert named == {name for room in big for name in folders_of(ROOT / room)}
    assert not [name for name in planned if (ROOT / name).exists()]


def folders_of(room: Path) -> list[str]:
    """A room's own folders; `declai/` has links to the other rooms beside them."""
    own = [path for path in room.iterdir() if path.is_dir() and not path.is_symlink() and path.name != "__pycache__"]
    return [f"{room.name}/{path.name}/" for path in own]


def test_the_rooms_of_the_readme_are_those_of_the_page() -> None:
    rooms = [cells[:2] for cells in table(PAGE, "floor") if not cells[1].endswith(PLANNED)]
    assert [cells[:2] for cells in table(ROOT / "README.md", "floor")] == rooms


def test_every_kind_of_frame_is_explained_once() -> None:
    named = [kind for cells in table(PAGE, "frame") for kind in code_spans(cells[0])]
    assert sorted(named) == sorted(frame.kind for frame in get_args(wire.Frame))


def test_every_thread_of_a_node_is_named() -> None:
    text = "".join(cells[0] for cells in table(PAGE, "thread"))
    started = re.compile(r'Thread\([^)]*name="([\w-]+)"|__init__\(name="([\w-]+)"|ThreadPoolExecutor\(\d+, "([\w-]+)"')
    sources = [path.read_text() for room in ("worker", "links") for path in (ROOT / room).rglob("*.py")]
    names = {name for source in sources for match in started.findall(source) for name in match if name}
    assert len(names) >= 4
    assert not [name for name in names if f"`{name}`" not in text]


def test_every_module_that_code_speaks_of_exists() -> None:
    """In docstrings and comments: `links.seals`, `protocol.rows`, also with a class or function behind it."""
    rooms = ("api", "chain", "ipfs", "links", "planning", "protocol", "storage", "worker")
    spoken = re.compile(rf"`((?:declai\.)?(?:{'|'.join(rooms)})(?:\.\w+)+)`")
    files = [path for room in (*rooms, "benchmarks", "declai", "tests") for path in (ROOT / room).rglob("*.py")]
    assert not [(path.name, name) for path in files for name in spoken.findall(path.read_text()) if not is_known(name)]


def is_known(name: str) -> bool:
    parts = name.removeprefix("declai.").split(".")
    ends = range(len(parts), 1, -1)
    places = [ROOT.joinpath(*parts[:end]) for end in ends]
    return any(place.is_dir() or place.with_suffix(".py").is_file() for place in places)
