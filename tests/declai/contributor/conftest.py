"""A chain for each test module here, since these tests move its clock; contracts and a desk for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from declai.chain.client import Chain, Rpc
from declai.chain.deploy import deploy
from declai.chain.messages import new_account
from declai.chain.parameters import Parameters
from declai.devnet.chain_setup import fund
from declai.devnet.processes import ChainKind, start_chain
from tests.support.desks import Desk
from tests.support.world import World


@pytest.fixture(scope="module")
def own_chain(tmp_path_factory: pytest.TempPathFactory, chain_kind: ChainKind) -> Iterator[str]:
    with start_chain(tmp_path_factory.mktemp("chain"), chain_kind) as url:
        yield url


@pytest.fixture(scope="module")
def own_world(own_chain: str) -> World:
    """Contracts on the module's chain."""
    treasury = new_account()
    fund(Rpc(own_chain), [treasury.address])
    return World(Chain(own_chain, deploy(own_chain, treasury, Parameters(treasury=treasury.address))), treasury)


@pytest.fixture
def desk(own_world: World, tmp_path: Path) -> Desk:
    """A contributor with an operator's wallet that holds credits and ETH, and a signer's that holds nothing."""
    made = Desk(own_world, tmp_path / "home")
    made.keep("operator", own_world.rich())
    made.keep("signer", new_account())
    return made
