"""The start of a gateway: whichever step fails, nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from declai.api import gateway as module
from declai.api.gateway import STEPS, Gateway, open_gateway
from declai.api.settings import GatewaySettings
from declai.chain import keystore
from declai.chain.contracts.nodes import Role
from declai.chain.messages import new_account
from declai.devnet.processes import RedisAddress
from declai.links.keys import LinkKeyPair
from tests.support.leftovers import leaving_nothing_open
from tests.support.world import World

PASSWORD = "test"


@pytest.fixture
def settings(world: World, redis_server: RedisAddress, tmp_path: Path) -> GatewaySettings:
    """Of a gateway that is registered on chain."""
    signer, session = new_account(), new_account()
    for name, account in (("signer", signer), ("session", session)):
        keystore.save(account, tmp_path / f"{name}.json", PASSWORD, keystore.SCRYPT_LIGHT)
    (tmp_path / "password").touch(mode=0o600)
    (tmp_path / "password").write_text(PASSWORD)
    world.register(Role.GATEWAY, signer, LinkKeyPair.create(tmp_path / "link.key").public)
    world.chain.deployment.save(tmp_path / "deployment.json")
    return GatewaySettings(
        rpc_url=world.chain.rpc_url,
        deployment=tmp_path / "deployment.json",
        link_bind="tcp://127.0.0.1:0",
        data_dir=tmp_path / "data",
        signer_keystore=tmp_path / "signer.json",
        session_keystore=tmp_path / "session.json",
        link_key=tmp_path / "link.key",
        password_file=tmp_path / "password",
        redis_url=redis_server.url,
    )


async def open_and_close(settings: GatewaySettings) -> None:
    async with open_gateway(settings):
        pass


def test_whichever_step_fails_nothing_stays_open(settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def broken(gateway: Gateway) -> AsyncIterator[None]:
        raise OSError("broken")
        yield

    asyncio.run(open_and_close(settings))  # what the process keeps is there from now on
    for number in range(len(STEPS) + 1):
        monkeypatch.setattr(module, "STEPS", (*STEPS[:number], broken, *STEPS[number:]))
        with leaving_nothing_open(settings.rpc_url), pytest.raises(OSError, match="broken") as caught:
            asyncio.run(open_and_close(settings))
        assert caught.value.__notes__ == ["the start failed at the step broken"]
    monkeypatch.undo()
    with leaving_nothing_open(settings.rpc_url):
        asyncio.run(open_and_close(settings))
