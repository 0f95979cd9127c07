"""Settings: what no program knows is refused, with what may be meant; the list of what they know is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from declai.api.settings import GatewaySettings
from declai.chain.settings import OTHER_VARIABLES, SETTINGS, ChainSettings, explain
from declai.cli import root
from declai.errors import DeclaiError
from declai.worker.node import program
from declai.worker.node.settings import NodeSettings


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough settings for a node; a gateway needs none."""
    monkeypatch.setenv("DECLAI_MODEL", "any")
    monkeypatch.setenv("DECLAI_GATEWAY_URL", "http://127.0.0.1:1")


def refusal(kind: type[ChainSettings]) -> str:
    with pytest.raises(ValidationError) as refused:
        kind()
    return explain(refused.value)


def test_the_list_of_settings_is_that_of_the_programs() -> None:
    assert {*ChainSettings.model_fields, *NodeSettings.model_fields, *GatewaySettings.model_fields} == SETTINGS
    assert not SETTINGS & OTHER_VARIABLES


@pytest.mark.parametrize("name", sorted(OTHER_VARIABLES - {"config"}))
def test_variables_of_commands_are_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DECLAI_{name.upper()}", "x")
    NodeSettings()
    GatewaySettings()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DECLAI_MAX_SESSIONS", "DECLAI_MAX_SESSIONS is no setting any more: it is max_jobs now"),
        ("DECLAI_MAX_JOB", "DECLAI_MAX_JOB is no setting: is DECLAI_MAX_JOBS meant?"),
        ("declai_linkbind", "DECLAI_LINKBIND is no setting: is DECLAI_LINK_BIND meant?"),
        ("DECLAI_FEE_BSP", "DECLAI_FEE_BSP is no setting: is DECLAI_FEE_BPS meant?"),
        ("DECLAI_XYZZY", "DECLAI_XYZZY is no setting"),
    ],
)
@pytest.mark.parametrize("kind", [NodeSettings, GatewaySettings])
def test_a_variable_that_nobody_knows_is_refused(
    kind: type[ChainSettings], variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    assert refusal(kind) == text


SERVICE = {
    "SERVICE_HOST": "10.0.0.7",
    "SERVICE_PORT": "8080",
    "SERVICE_PORT_HTTP": "8080",
    "PORT": "tcp://10.0.0.7:8080",
    "PORT_8080_TCP": "tcp://10.0.0.7:8080",
    "PORT_8080_TCP_PROTO": "tcp",
    "PORT_8080_TCP_PORT": "8080",
    "PORT_8080_TCP_ADDR": "10.0.0.7",
}


@pytest.mark.parametrize("kind", [NodeSettings, GatewaySettings])
def test_variables_that_kubernetes_sets_for_a_service_are_passed_over(
    kind: type[ChainSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SERVICE.items():
        monkeypatch.setenv(f"DECLAI_MY_GATEWAY_{name}", value)
    kind()
    monkeypatch.setenv("DECLAI_METRIC_PORT", "9100")  # of no Service that there is
    assert refusal(kind) == "DECLAI_METRIC_PORT is no setting: is DECLAI_METRICS_PORT meant?"


def test_so_is_a_line_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "node.toml"
    monkeypatch.setenv("DECLAI_CONFIG", str(file))
    file.write_text('max_sessions = 4\nnum_thread = 2\nport = 8080\nredis_url = "redis://a:hunter2@127.0.0.1/0"\n')
    expected = (
        "max_sessions is no setting any more: it is max_jobs now; num_thread is no setting: is num_threads meant?"
    )
    assert refusal(NodeSettings) == refusal(GatewaySettings) == expected
    file.write_text("port = 8080\nnum_threads = 2\n")  # one file may serve both programs of a machine
    assert NodeSettings().num_threads == 2
    assert GatewaySettings().port == 8080


def test_a_refusal_shows_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECLAI_REDIS_URL", "redis://admin:hunter2@broker.example:6379/0")
    monkeypatch.setenv("DECLAI_PORT", "hunter2")
    assert "hunter2" not in refusal(GatewaySettings)
    result = CliRunner().invoke(root, ["gateway", "settle"])
    assert isinstance(result.exception, DeclaiError)
    assert "port: Input should be a valid integer" in str(result.exception)
    assert "hunter2" not in str(result.exception)


def test_a_node_says_so_and_ends(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(program, "set_up_logging", lambda: None)
    monkeypatch.setenv("DECLAI_MAX_SESSIONS", "4")
    assert program.main(["--once"]) == program.EXIT_USAGE
    assert "wrong settings: DECLAI_MAX_SESSIONS is no setting any more: it is max_jobs now" in caplog.text
