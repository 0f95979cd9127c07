"""Each thing that can be wrong has its line, and says what to do."""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Role
from declai.chain.messages import new_account
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.contributor.doctor.case import Case
from declai.contributor.doctor.cgroup import cpu_quota, memory_limit
from declai.contributor.doctor.finding import Finding, Level
from declai.contributor.doctor.machine import cpu_flags
from declai.contributor.doctor.resources import disk, memory
from declai.links.keys import LinkKeyPair
from declai.links.node_links import NodeLinks
from declai.worker.node.settings import NodeSettings
from tests.support.desks import equivocate
from tests.support.patients import Patient

NOBODY = "http://127.0.0.1:9"


def is_problem(found: Finding, value: str, advice: str) -> None:
    assert found.level is Level.PROBLEM, found
    assert value in found.value
    assert advice in found.advice


def cannot_be_told(found: Finding, why: str) -> None:
    assert found.level is Level.WARNING, found
    assert "cannot be told" in found.value
    assert why in found.value


def test_key_files(patient: Patient, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing")
    is_problem(patient.find("keystore", signer_keystore=missing), "is not there", "declai wallet new signer")
    is_problem(patient.find("link_key", link_key=missing), "is not there", "--link-key")
    is_problem(patient.find("password", password_file=missing), "is not there", "mode 600")
    for name, setting in (("link_key", "link_key"), ("password", "password_file")):
        Path(patient.settings[setting]).chmod(0o640)
        found = patient.find(name)
        assert found.level is Level.PROBLEM
        assert "chmod 600" in found.value
    Path(patient.settings["signer_keystore"]).chmod(0o644)
    assert patient.find("keystore").level is Level.WARNING  # it is encrypted
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("not it")
    is_problem(patient.find("password", password_file=wrong), "wrong password", "write the password of")
    cannot_be_told(patient.find("join", password_file=wrong), "does not open")
    wrong.write_text("{}")
    is_problem(patient.find("keystore", signer_keystore=wrong), "names no address", "bring back")


def test_another_chain_or_none(patient: Patient, tmp_path: Path) -> None:
    deployment = json.loads(Path(patient.settings["deployment"]).read_text())
    other = tmp_path / "other.json"
    other.write_text(json.dumps(deployment | {"chain_id": 5}))
    is_problem(patient.find("rpc", deployment=other), "is chain 31337, the deployment is on 5", "set rpc_url")
    found = patient.find("rpc", rpc_url="http://127.0.0.1:9/secret-key")
    is_problem(found, "127.0.0.1:9 does not answer", "is rpc_url right")
    assert "secret-key" not in found.value
    for name in ("contracts", "registration", "stake", "registered_link_key", "model", "offer", "disk", "standing"):
        cannot_be_told(patient.find(name, deployment=other), "chain")
    empty = {name: str(new_account().address) for name in deployment["contracts"]}
    other.write_text(json.dumps(deployment | {"contracts": empty}))
    is_problem(patient.find("contracts", deployment=other), "no code for CreditToken", "get the right one")
    is_problem(patient.find("rpc", deployment=tmp_path / "none"), "is no deployment file", "set deployment")


def test_registration_stake_and_offer(patient: Patient) -> None:
    stranger = str(new_account().address)
    is_problem(patient.find("registration", operator=stranger), "is not registered", "declai node register")
    cannot_be_told(patient.find("stake", operator=stranger), "not registered")
    other = patient.network.nodes[0].address
    is_problem(patient.find("registration", operator=other), "registered with signer", "signer's keystore")
    is_problem(patient.find("registered_link_key", operator=other), "the registry has 0x", "register anew")
    gateway = str(patient.network.operator.address)
    assert patient.find("registration", operator=gateway).level is Level.PROBLEM
    is_problem(patient.find("offer", numeric_profile="bf16"), "has no offer for test/echo in bf16", "numeric_profile")
    is_problem(patient.find("offer", model="no/model"), "has no offer for no/model", "declai node offer")
    is_problem(patient.find("model", model="no/model"), "has no model 'no/model'", "declai market")
    nodes = patient.network.chain.nodes
    patient.world.send(patient.member.operator, nodes.begin_unstake(150 * UNITS_PER_CREDIT))
    is_problem(patient.find("stake"), "50 credits, 100 needed", "declai node stake 50")
    patient.world.send(patient.member.operator, nodes.remove_offer(model_id(patient.settings["model"]), 0))
    is_problem(patient.find("offer"), "has no offer", "declai node offer")


def test_jail(patient: Patient) -> None:
    equivocate(patient.desk, str(patient.member.operator.address), patient.member.signer)
    is_problem(patient.find("jail"), "in jail until 20", "declai node faults")


def test_a_port_that_another_program_has(patient: Patient, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        is_problem(patient.find("port", link_bind=bind), "cannot listen at", "end the program")
    stranger = NodeLinks(LinkKeyPair.create(tmp_path / "other.key"), patient.member.endpoint, lambda key: True)
    try:
        is_problem(patient.find("port"), "cannot listen at", "end the program")
        is_problem(patient.find("endpoint"), "somebody else answers", "register anew")
    finally:
        stranger.close()
    node = NodeLinks(LinkKeyPair.load(tmp_path / "link.key"), patient.member.endpoint, patient.member.link_key.__eq__)
    try:
        assert patient.find("port").level is Level.OK
        assert patient.find("endpoint").level is Level.OK
    finally:
        node.close()


def test_an_endpoint_that_leads_nowhere(patient: Patient) -> None:
    found = patient.find("endpoint", link_bind="tcp://127.0.0.1:0")
    is_problem(found, "nobody answers at", "open its port in firewalls")
    found = patient.find("endpoint", gateway_url="http://8.8.8.8")
    is_problem(found, "is a loopback address", "that others can reach")


def test_a_node_behind_a_relay_needs_no_port(patient: Patient) -> None:
    operator, keys = patient.member.operator, patient.member.link_key
    patient.world.send(operator, patient.network.chain.nodes.set_endpoint("relay", "", keys))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(patient.member.endpoint.rpartition(":")[2])))
        taken.listen()
        assert patient.find("port").value.startswith("none is needed")
        assert patient.find("endpoint").value.startswith("relay: ")
    assert patient.find("gateway_link").level is Level.OK


def test_a_gateway_whose_link_does_not_answer(patient: Patient) -> None:
    other = str(patient.desk.world.register(Role.GATEWAY).address)  # at a port where nobody listens
    url = patient.network.url
    is_problem(patient.find("gateway_link", gateway=other, gateway_url=url), "nobody answers at", "out of your network")


def test_no_finding_shows_what_a_url_may_keep_secret(patient: Patient) -> None:
    keyed = "http://me:secret-key@127.0.0.1:9"
    for name in ("health", "ipfs", "join", "standing"):
        found = patient.find(name, gateway_url=keyed, gateway=None, ipfs_peers=(f"{keyed}/secret-key",))
        assert "127.0.0.1:9" in found.value
        assert "secret-key" not in found.value


def test_a_gateway_that_is_down(patient: Patient) -> None:
    is_problem(patient.find("health", gateway_url=NOBODY), "does not answer: ConnectError", "is gateway_url right")
    is_problem(patient.find("ipfs", gateway_url=NOBODY), "does not answer", "ipfs_peers")
    found = patient.find("ipfs", ipfs_peers=(NOBODY,))
    assert (found.level, found.advice) == (Level.WARNING, "the others suffice while they are up")
    for name in ("join", "standing"):
        cannot_be_told(patient.find(name, gateway_url=NOBODY), "127.0.0.1:9 does not answer /v1/n")
    is_problem(patient.find("standing", gateway=str(new_account().address)), "no active gateway", "another gateway")


def test_a_gateway_that_lets_nobody_in(patient: Patient) -> None:
    found = patient.find("join", operator=patient.network.nodes[0].address)
    assert (found.level, found.value) == (
        Level.WARNING,
        "the gateway hears this node, 0 of 8 jobs running; none runs with these settings",
    )
    stranger = str(new_account().address)
    is_problem(patient.find("join", operator=stranger), "refused: HTTP 403", "what the gateway says")


def test_a_node_that_runs_but_is_not_heard_is_not_joined_over(patient: Patient) -> None:
    data_dir = Path(patient.settings["data_dir"])
    data_dir.mkdir()
    status = {"pid": os.getppid(), "state": "serving", "written_at": int(time.time()), "layers": [0, 3]}
    (data_dir / "status.json").write_text(json.dumps(status))
    found = patient.find("join")
    assert (found.level, found.value) == (Level.WARNING, "a node runs here (serving), and the gateway does not hear it")
    assert "start the node again" in patient.find("offer").advice
    assert "is free, though a node runs here" in patient.find("port").value
    (data_dir / "status.json").write_text(json.dumps(status | {"written_at": int(time.time()) - 60}))
    assert patient.find("offer").level is Level.OK


def test_too_little_memory_disk_or_files(patient: Patient) -> None:
    is_problem(patient.find("memory", max_cache_bytes=2**50), "1048576.", "smaller max_cache_bytes")
    settings = NodeSettings(**patient.settings)
    is_problem(disk(Case(settings), free_bytes=10), "still to come into", "make room")
    assert disk(Case(settings), free_bytes=10_000).level is Level.WARNING
    assert disk(Case(settings), free_bytes=2**40).level is Level.OK
    assert "weights unknown" in memory(Case(NodeSettings(**(patient.settings | {"rpc_url": NOBODY})))).value
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        is_problem(patient.find("files"), "300 may be open", "ulimit -n 384")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("behind_s", "level"), [(0, Level.OK), (20, Level.WARNING), (300, Level.PROBLEM), (-300, Level.PROBLEM)]
)
def test_a_wrong_clock(patient: Patient, behind_s: float, level: Level) -> None:
    with stub_gateway(behind_s) as url:
        found = patient.find("clock", gateway_url=url)
    assert found.level is level, found
    if level is Level.PROBLEM:
        assert f"{'behind' if behind_s > 0 else 'ahead of'} the gateway" in found.value
        assert "NTP" in found.advice


def test_a_clock_without_a_gateway_is_held_against_the_chain(patient: Patient) -> None:
    patient.desk.pass_time(3600)
    is_problem(patient.find("clock", gateway_url=NOBODY), "behind the chain's latest block", "NTP")
    cannot_be_told(patient.find("clock", gateway_url=NOBODY, rpc_url=NOBODY), "")


@contextmanager
def stub_gateway(ahead_s: float) -> Iterator[str]:
    """Its clock is this far ahead of ours."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("date", formatdate(time.time() + ahead_s, usegmt=True))
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_devices_and_threads_that_are_not_there(patient: Patient) -> None:
    is_problem(patient.find("accelerators", device="cuda:7"), "the settings want cuda:7", 'device = "cpu"')
    found = patient.find("threads", num_threads=1000)
    assert (found.level, found.value[:4]) == (Level.WARNING, "1000")
    assert patient.find("threads", num_threads=1).level is Level.OK


def test_bounds_of_control_groups(tmp_path: Path) -> None:
    """Version 2 nests: the tightest bound of all groups above holds. Version 1 has a tree for each controller."""
    membership = tmp_path / "membership"
    membership.write_text("0::/system/node.service\n")
    inner = tmp_path / "two" / "system" / "node.service"
    inner.mkdir(parents=True)
    assert (cpu_quota(tmp_path / "two", membership), memory_limit(tmp_path / "two", membership)) == (None, None)
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    (inner.parent / "memory.max").write_text("1000000\n")
    assert (cpu_quota(tmp_path / "two", membership), memory_limit(tmp_path / "two", membership)) == (1.5, 1_000_000)
    membership.write_text("5:cpu,cpuacct:/node\n4:memory:/node\n0::/\n")
    for controller, values in (
        ("cpu", {"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"}),
        ("memory", {"memory.limit_in_bytes": "5000"}),
    ):
        folder = tmp_path / "one" / controller / "node"
        folder.mkdir(parents=True)
        for name, value in values.items():
            (folder / name).write_text(value)
    (tmp_path / "one" / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert (cpu_quota(tmp_path / "one", membership), memory_limit(tmp_path / "one", membership)) == (2.0, 5000)


def test_what_a_processor_can_do_is_read_where_the_system_tells(tmp_path: Path) -> None:
    described = tmp_path / "cpuinfo"
    described.write_text("processor\t: 0\nflags\t\t: fpu avx2 amx_tile\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert cpu_flags(described) == {"fpu", "avx2", "amx_tile"}
    described.write_text("Features\t: fp asimd bf16\n")
    assert cpu_flags(described) == {"fp", "asimd", "bf16"}
    assert cpu_flags(tmp_path / "nothing") == set()
