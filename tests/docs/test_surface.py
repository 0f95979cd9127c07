"""What others rely on is documented, and stays: HTTP, errors, clients, commands, settings, metrics."""

from __future__ import annotations

import re

import pytest

from declai import cli
from declai.chain.settings import OTHER_VARIABLES
from declai.protocol.failures import FailureCode
from declai.protocol.problems import ProblemKind
from tests.docs.documents import DOCUMENTS, ROOT, table
from tests.docs.surface import (
    any_name,
    commands,
    endpoints,
    error_codes,
    gateway_metrics,
    node_metrics,
    released,
    surface,
)

DOCS = ROOT / "docs"


def test_every_released_name_is_still_there() -> None:
    """`docs/stability.md` says when a name may leave."""
    today = surface()
    gone = [
        (kind, name, sorted(set(parts) - set(today[kind].get(name, []))))
        for kind, names in released().items()
        for name, parts in names.items()
        if name not in today[kind] or not set(parts) <= set(today[kind][name])
    ]
    assert released()
    assert not gone


def test_every_command_is_documented() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert not [words for words, _ in commands(cli.root) if f"declai {' '.join(words)}" not in text]


def test_every_endpoint_is_documented_and_no_other() -> None:
    spans = [span for cells in table(DOCS / "http.md", "endpoint") for span in re.findall(r"`([^`]+)`", cells[0])]
    assert sorted(any_name(span) for span in spans) == sorted(name for name, _ in endpoints())


def test_every_problem_of_receipts_is_documented_and_no_other() -> None:
    named = [kind for cells in table(DOCS / "auditors.md", "problem") for kind in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(named) == sorted(ProblemKind)


def test_every_code_of_failures_is_documented_and_no_other() -> None:
    rows = table(DOCS / "contributors.md", "failure code")
    named = [code for cells in rows for code in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(named) == sorted(FailureCode)


def test_every_field_of_a_completion_is_documented_and_no_other() -> None:
    named = {name for cells in table(DOCS / "http.md", "field") for name in re.findall(r"`(\w+)`", cells[0])}
    today = surface()["http"]
    assert named == {*today["POST /v1/chat/completions"], *today["POST /v1/completions"]}


def test_every_error_code_is_documented_and_no_other() -> None:
    named = [code for cells in table(DOCS / "http.md", "code") for code in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(named) == error_codes()


def test_every_variable_is_documented_and_no_other() -> None:
    """Those that are no settings of a node or a gateway, and one that is a setting, too."""
    rows = table(DOCS / "requesters.md", "variable")
    named = {name.removeprefix("DECLAI_").lower() for cells in rows for name in re.findall(r"`(\w+)`", cells[0])}
    assert named == OTHER_VARIABLES | {"password_file"}


@pytest.mark.parametrize(("program", "page"), [("node", "contributors.md"), ("gateway", "gateways.md")])
def test_every_setting_is_documented_and_no_other(program: str, page: str) -> None:
    named = [name for cells in table(DOCS / page, "name") for name in re.findall(r"`(\w+)`", cells[0])]
    assert sorted(named) == sorted(surface()["settings"][program])


@pytest.mark.parametrize(
    ("names", "page"),
    [(node_metrics(), "contributors.md"), (gateway_metrics(), "gateways.md")],
    ids=["node", "gateway"],
)
def test_every_metric_is_documented(names: list[str], page: str) -> None:
    """Counters have `_total` at their end where they are read."""
    text = (DOCS / page).read_text()
    assert not [name for name in names if not re.search(rf"`{name}(_total)?`", text)]
