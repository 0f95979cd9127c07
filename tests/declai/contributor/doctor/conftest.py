"""A node that is set up and does not run, at a real gateway: what the checks are tried on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from declai.chain import keystore
from declai.chain.contracts.nodes import Role
from declai.chain.messages import new_account
from declai.devnet import chain_setup
from declai.devnet.processes import ChainKind, RedisAddress, free_port, start_chain
from declai.links.keys import LinkKeyPair
from tests.support.desks import Desk
from tests.support.echo_network import MODEL, PASSWORD, Network, running_network
from tests.support.patients import Patient
from tests.support.world import World


@pytest.fixture(scope="module")
def network(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisAddress, chain_kind: ChainKind
) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    with start_chain(folder / "logs", chain_kind) as rpc_url, running_network(folder, rpc_url, redis_server) as network:
        yield network


@pytest.fixture
def patient(network: Network, tmp_path: Path) -> Patient:
    desk = Desk(World(network.chain, network.treasury), tmp_path / "home")
    keys, signer = LinkKeyPair.create(tmp_path / "link.key"), new_account()
    operator = desk.keep("operator", desk.world.rich())
    keystore.save(signer, tmp_path / "signer.json", PASSWORD, keystore.SCRYPT_LIGHT)
    desk.secrets += [bytes(signer.key).hex(), keys.secret.hex(), *(tmp_path / "link.key").read_text().split()[1:]]
    password_file = tmp_path / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(PASSWORD)
    member = chain_setup.Member(operator, signer, keys.public, f"tcp://127.0.0.1:{free_port()}")
    chain_setup.register(network.chain, member, Role.WORKER)
    chain_setup.offer(network.chain, member, MODEL, 2, 5)
    settings = {
        "rpc_url": network.chain.rpc_url,
        "deployment": str(network.settings.deployment),
        "gateway_url": network.url,
        "model": MODEL,
        "data_dir": str(tmp_path / "data"),
        "signer_keystore": str(tmp_path / "signer.json"),
        "password_file": str(password_file),
        "link_key": str(tmp_path / "link.key"),
        "link_bind": member.endpoint,
        "max_cache_bytes": 2**24,
    }
    return Patient(network, desk, settings, member)
