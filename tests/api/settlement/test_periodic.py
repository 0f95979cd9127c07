"""The settlement job as it is deployed: settings, keystores, Celery's beat and worker, a real chain."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
import redis
from pydantic import ValidationError

from declai.api.settings import GatewaySettings
from declai.api.settlement.periodic import QUEUE, run_settlement
from declai.chain import keystore
from declai.chain.errors import DeploymentError
from declai.chain.messages import new_account
from declai.children import spawn
from declai.devnet.processes import RedisAddress
from tests.support.books import Books, Market
from tests.support.waiting import wait_until


@pytest.fixture
def settings(market: Market, tmp_path: Path, redis_server: RedisAddress) -> GatewaySettings:
    (tmp_path / "gateway").mkdir()
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("test")
    for name, account in (("signer", market.gateway.signer), ("session", market.session_account)):
        keystore.save(account, tmp_path / f"{name}.json", "test", keystore.SCRYPT_LIGHT)
    market.chain.deployment.save(tmp_path / "deployment.json")
    return GatewaySettings(
        rpc_url=market.chain.rpc_url,
        deployment=tmp_path / "deployment.json",
        data_dir=tmp_path / "gateway",
        signer_keystore=tmp_path / "signer.json",
        session_keystore=tmp_path / "session.json",
        password_file=password,
        redis_url=redis_server.url,
        settle_every_s=1,
    )


@pytest.fixture
def served(settings: GatewaySettings, market: Market, redis_server: RedisAddress) -> tuple[str, int]:
    """A session and what one request of it cost; nothing is settled yet."""
    books = Books(market, settings.data_dir, settings.store_url, redis_server.url)
    session = market.open_session()
    _, cost = books.serve(session)
    books.close()
    return session, cost


def environment(settings: GatewaySettings) -> dict[str, str]:
    values = {name: getattr(settings, name) for name in settings.model_fields_set} | {
        "redis_url": settings.redis_url.get_secret_value()
    }
    return {**os.environ, **{f"DECLAI_{name.upper()}": str(value) for name, value in values.items()}}


def test_settling_now_returns_a_row_per_batch(
    settings: GatewaySettings, market: Market, served: tuple[str, int]
) -> None:
    session, cost = served
    (row,) = run_settlement(settings)
    assert set(row) == {"batch", "root", "cid", "block", "transaction", "gas_used"}
    assert market.session(session).settled == cost
    assert run_settlement(settings) == []


def test_two_processes_that_settle_at_once_do_it_once(
    settings: GatewaySettings, market: Market, served: tuple[str, int]
) -> None:
    rows: list[dict[str, object]] = []
    threads = [threading.Thread(target=lambda: rows.extend(run_settlement(settings))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows) == 1
    assert market.session(served[0]).settled == served[1]


def test_beat_asks_and_the_worker_settles(
    settings: GatewaySettings, market: Market, served: tuple[str, int], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "celery", "-A", "declai.api.settlement.periodic", "worker", "-B", "-P", "solo"]
    options = ["--without-gossip", "--without-mingle"]
    child = spawn("settlement", [*command, *options], tmp_path / "settlement.log", environment(settings))
    try:
        wait_until(lambda: market.session(served[0]).settled or not child.alive, lambda: child.log_tail(40), 60)
        assert child.alive, child.log_tail(40)
        assert market.session(served[0]).settled == served[1]
    finally:
        child.stop()
        client = redis.Redis.from_url(settings.redis_url.get_secret_value())
        client.delete(QUEUE)
        client.close()


def test_a_signer_that_nobody_registered_cannot_settle(settings: GatewaySettings, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.json"
    keystore.save(new_account(), stranger, "test", keystore.SCRYPT_LIGHT)
    with pytest.raises(DeploymentError, match="registered"):
        run_settlement(settings.model_copy(update={"signer_keystore": stranger}))


def test_an_interval_that_lets_payers_leave_unpaid_is_refused(settings: GatewaySettings, market: Market) -> None:
    thaw_period_s = market.chain.ledger.thaw_period_s()
    with pytest.raises(DeploymentError, match="settle at least every"):
        run_settlement(settings.model_copy(update={"settle_every_s": thaw_period_s / 3}))
    assert run_settlement(settings.model_copy(update={"settle_every_s": thaw_period_s / 4})) == []


@pytest.mark.parametrize(
    ("unsafe", "safe"),
    [
        ({"host": "0.0.0.0"}, {"behind_tls": True}),
        ({"host": "gateway.example"}, {"behind_tls": True}),
        ({"public_url": "http://gateway.example"}, {"public_url": "https://gateway.example"}),
        ({"redis_url": "redis://broker.example:6379/0"}, {"redis_url": "rediss://broker.example:6379/0"}),
        ({"redis_url": "redis://broker.example:6379/0"}, {"private_network": True}),
    ],
)
def test_unsafe_settings_are_refused_with_the_reason(unsafe: dict[str, object], safe: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="clear"):
        GatewaySettings(**unsafe)  # type: ignore[arg-type]
    GatewaySettings(**(unsafe | safe))  # type: ignore[arg-type]


def test_settings_show_no_secrets_and_read_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('port = 9000\nredis_url = "redis://admin:hunter2@127.0.0.1/0"\npublic_url = "https://[::1]:9000"\n')
    monkeypatch.setenv("DECLAI_CONFIG", str(file))
    monkeypatch.setenv("DECLAI_FEE_BPS", "250")
    found = GatewaySettings()
    assert (found.port, found.fee_bps, found.domain) == (9000, 250, "[::1]:9000")
    assert "hunter2" not in repr(found)
    assert "hunter2" not in found.model_dump_json()
