"""What `declai node claim` and `status` say when they are called with the wrong wallet, settings or network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from declai.chain.contracts.nodes import Role
from declai.chain.messages import new_account
from declai.devnet.programs import write_settings
from declai.worker.job.store import NodeStore
from tests.support.desks import Desk
from tests.support.devnet import ROOT
from tests.support.old_databases import copy_of
from tests.support.papers import Papers


@pytest.fixture
def worker(desk: Desk) -> Desk:
    """A desk with the wallet of a registered node's operator."""
    desk.keep("worker", desk.world.register(Role.WORKER))
    return desk


def settings(desk: Desk, **changes: str) -> list[str]:
    """A claim with the settings of a node that has receipts, all of them settled."""
    data_dir = desk.home / "node"
    NodeStore(data_dir / "node.db").close()
    path = desk.home / "node.toml"
    desk.chain.deployment.save(desk.home / "deployment.json")
    places = {"data_dir": str(data_dir), "deployment": str(desk.home / "deployment.json")}
    write_settings(path, {"model": "m", "gateway_url": "http://127.0.0.1:9", **places, **changes})
    return ["node", "claim", "--wallet", "worker", "--config", str(path)]


def test_nothing_is_owed_and_that_is_all_right(worker: Desk) -> None:
    claim = settings(worker)
    assert worker.ok(*claim) == "Nothing is owed.\n"
    found = worker.json(*claim)
    operator = worker.network.wallets["worker"].address
    assert found == {
        "operator": operator,
        "owed": [],
        "collected_units": "0",
        "court_units": "0",
        "unread_batches": [],
    }


def test_a_wallet_by_its_keystore_file(worker: Desk) -> None:
    keystore = worker.network.wallets["worker"].keystore
    assert worker.ok(*settings(worker), "--wallet", keystore) == "Nothing is owed.\n"


def test_a_wallet_of_nobody(worker: Desk) -> None:
    stranger = worker.keep("stranger", new_account())
    text = worker.fails(*settings(worker), "--wallet", "stranger")
    assert f"{stranger.address} is neither operator nor signer of a node" in text


def test_an_operator_who_left_sees_his_claims_through(worker: Desk) -> None:
    worker.ok("node", "deregister", "--wallet", "worker")
    assert worker.ok(*settings(worker)) == "Nothing is owed.\n"


def test_settings_without_receipts_or_of_no_node(worker: Desk) -> None:
    text = worker.fails(*settings(worker, data_dir=str(worker.home / "elsewhere")))
    assert f"no receipts at {worker.home / 'elsewhere' / 'node.db'}: is --config the file" in text
    bad = worker.home / "bad.toml"
    bad.write_text('gateway_url = "http://127.0.0.1:9"\npassword_file = ["s3cret"]\n')
    for command in (["claim", "--wallet", "worker"], ["status"]):
        text = worker.fails("node", *command)
        assert "these are no settings of a node (model: Field required): name its file with --config" in text
        assert "s3cret" not in worker.fails("node", *command, "--config", str(bad))
        worker.fails("node", *command, "--config", str(worker.home / "none.toml"), code=2)
    bad.write_text("no toml [")
    assert "no TOML" in worker.fails("node", "status", "--config", str(bad))
    assert "no node runs with these settings" in worker.fails("node", "status", *settings(worker)[-2:])


def test_settings_of_another_deployment(worker: Desk) -> None:
    claim = settings(worker)
    other = worker.chain.deployment.model_copy(update={"chain_id": 5})
    other.save(worker.home / "deployment.json")
    text = worker.fails(*claim)
    assert "on chain 5, the network file names" in text
    assert "name the node's network with --network" in text


def test_a_store_that_is_damaged_is_named(worker: Desk) -> None:
    claim = settings(worker)
    path = worker.home / "node" / "node.db"
    for file in path.parent.glob("node.db*"):
        file.unlink()
    path.write_bytes(b"no database" * 1000)
    assert f"cannot open {path}: file is not a database" in worker.fails(*claim)


def test_a_store_is_not_migrated_under_a_node_or_by_who_only_looks(worker: Desk) -> None:
    claim = settings(worker)
    path = worker.home / "node" / "node.db"
    for file in path.parent.glob("node.db*"):
        file.unlink()
    copy_of("v1/node.db", path.parent)
    before = path.read_bytes()
    assert "call without --dry-run" in worker.fails(*claim, "--dry-run")
    status = {"pid": os.getppid(), "state": "serving", "written_at": time.time() + 60}
    (path.parent / "status.json").write_text(json.dumps(status))
    for options in ([], ["--dry-run"]):
        assert "the node of the older release still runs: stop it" in worker.fails(*claim, *options)
    assert path.read_bytes() == before
    (path.parent / "status.json").write_text(json.dumps(status | {"state": "stopped"}))
    assert worker.json(*claim)["owed"] == []
    assert worker.json(*claim, "--dry-run")["owed"] == []


def test_receipts_of_another_operator_are_not_looked_at(worker: Desk) -> None:
    claim = settings(worker)
    papers = Papers(domain=worker.chain.domain)
    store = NodeStore(worker.home / "node" / "node.db")
    papers.keep(store, papers.request())
    store.close()
    assert worker.json(*claim)["owed"] == []


def test_under_cron_nobody_types_a_password(worker: Desk) -> None:
    keystore = worker.network.wallets["worker"].keystore  # by its path, so that no password file is known
    command = [sys.executable, "-m", "declai", "node", "stake", "1", "--wallet", keystore]
    detached = {"stdin": subprocess.DEVNULL, "start_new_session": True}
    done = subprocess.run(command, env=worker.env, cwd=ROOT, capture_output=True, text=True, check=False, **detached)  # type: ignore[call-overload]
    assert done.returncode == 1
    assert "name a file that holds it with --password-file or DECLAI_PASSWORD_FILE" in done.stderr


def test_a_chain_that_is_gone(worker: Desk) -> None:
    claim, network = settings(worker), worker.home / "gone.json"
    text = worker.network_file.read_text().replace(worker.chain.rpc_url, "http://127.0.0.1:9")
    network.write_text(text)
    assert "the chain at 127.0.0.1:9 does not answer" in worker.fails(*claim, "--network", str(network))
