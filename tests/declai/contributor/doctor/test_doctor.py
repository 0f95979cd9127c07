"""`declai node doctor` as people and scripts call it."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from declai.contributor.doctor.case import Case
from declai.contributor.doctor.examination import GROUPS, bounded, examine
from declai.contributor.doctor.finding import Finding, Level, ok
from declai.devnet.layout import DevnetLayout
from declai.worker.node.settings import NodeSettings
from tests.support.devnet import Cli, Running
from tests.support.patients import Patient

NAMES = {
    "machine": ["settings", "python", "torch", "processor", "instructions", "accelerators", "threads"],
    "keys": ["keystore", "password", "link_key"],
    "chain": ["rpc", "contracts", "registration", "stake", "jail", "registered_link_key", "model", "offer"],
    "resources": ["memory", "disk", "files", "store"],
    "links": ["port", "endpoint", "gateway_link"],
    "gateway": ["health", "clock", "standing", "ipfs", "join"],
}


def test_a_machine_without_settings_is_examined_alone(cli: Cli) -> None:
    found = cli.json("node", "doctor")
    assert [check["name"] for check in found["checks"]] == NAMES["machine"]
    assert found["problems"] == 0
    assert "none are named" in found["checks"][0]["value"]


def test_a_node_that_could_serve_has_no_problems(patient: Patient) -> None:
    done = patient.desk.run("node", "doctor", "--config", str(patient.config), "--json")
    found = json.loads(done.out)
    assert done.code == 0, done.out
    assert set(found) == {"problems", "warnings", "checks"}
    assert all(set(check) == {"group", "name", "level", "value", "advice"} for check in found["checks"])
    for group, names in NAMES.items():
        assert [check["name"] for check in found["checks"] if check["group"] == group] == names
    of = {check["name"]: check for check in found["checks"]}
    assert of["offer"]["value"].startswith("layers 2-4 in fp32")
    assert of["port"]["value"].endswith("is free")
    assert "leads here" in of["endpoint"]["value"]
    assert of["join"]["value"] == "the gateway lets this node in, and its queue answers"
    assert not Path(patient.settings["data_dir"]).exists()  # it only looks


def test_problems_are_lines_with_advice_and_an_exit_code(patient: Patient) -> None:
    Path(patient.settings["link_key"]).chmod(0o644)
    done = patient.desk.run("node", "doctor", "--config", str(patient.config))
    assert done.code == 1
    lines = done.out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("  problem  link key"))
    assert "others may read" in lines[at]
    assert "has to be replaced in the registry, too" in lines[at + 1]
    assert lines[-1].startswith("1 problem, ")
    assert done.out.count("cannot be told: others may read") == 1  # of all that needs the key
    assert "cannot be told, as above" in done.out


def test_a_running_node_is_seen_and_left_alone(devnet: Running) -> None:
    config = DevnetLayout(devnet.cli.home / "devnet").node_config(0)
    before = devnet.cli.json("node", "status", "--config", str(config))
    found = devnet.cli.json("node", "doctor", "--config", str(config))
    assert found["problems"] == 0, found
    of = {check["name"]: check["value"] for check in found["checks"]}
    assert of["port"].startswith("this node listens at")
    assert "leads here" in of["endpoint"]
    assert of["join"].startswith("the gateway hears this node, ")
    devnet.cli.ok("chat", "What is a list?", "--max-tokens", "3")
    after = devnet.cli.json("node", "status", "--config", str(config))
    assert (after["pid"], after["state"]) == (before["pid"], "serving")
    assert after["engine_thread"]["ended"]


def test_wrong_settings_are_a_problem_of_their_own(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text('model = "m"\ndevice = "abacus"\n')
    done = cli.run("node", "doctor", "--config", str(config), "--json")
    assert done.returncode == 1
    settings, *others = json.loads(done.stdout)["checks"]
    assert settings["level"] == "problem"
    assert "device" in settings["value"]
    assert [check["name"] for check in others] == NAMES["machine"][1:]


def test_who_is_silent_is_waited_for_once(patient: Patient) -> None:
    """A connection that is taken and never answered: what needs the same answer does not wait for it again."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        rpc_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        found = {
            one.name: one.finding for one in examine(NodeSettings(**patient.settings | {"rpc_url": rpc_url}), "", 3)
        }
    assert [*found] == [name for names in NAMES.values() for name in names]
    assert found["rpc"].value == "no answer within 3 s"
    assert found["stake"].value.startswith("cannot be told: ")
    assert [name for name, one in found.items() if one.value == "no answer within 3 s"] == ["rpc", "contracts"]
    assert time.monotonic() - began < 45


def test_no_check_stops_the_others(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(case: Case) -> Finding:
        raise RuntimeError("a check of a new kind")

    def hangs(case: Case) -> Finding:
        time.sleep(60)
        return ok("")

    settings = NodeSettings(**patient.settings)
    monkeypatch.setitem(GROUPS, "machine", {"dies": dies, "hangs": hangs, "fine": lambda case: ok("")})
    for group in NAMES.keys() - {"machine"}:
        monkeypatch.setitem(GROUPS, group, {})
    dead, hung, fine = (examined.finding for examined in examine(settings, timeout_s=0.2))
    assert (dead.level, dead.value) == (
        Level.WARNING,
        "the check failed: RuntimeError: a check of a new kind",
    )
    assert (hung.level, hung.value) == (Level.PROBLEM, "no answer within 0.2 s")
    assert fine == ok("")
    assert bounded(lambda case: ok(case.settings.model), Case(None), 1).value == "cannot be told: there are no settings"
