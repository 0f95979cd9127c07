"""The event index tells what the contracts' own views tell, after random deeds, restarts and reorganisations."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount

from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Offer, Role
from declai.chain.index import EventIndex
from declai.chain.messages import InferenceReceipt, new_account, sign
from declai.chain.state import ChainState
from tests.support.world import World, rpc

pytestmark = pytest.mark.every_chain
CREDIT = 10**18
MODEL = "tiny"


class Deeds:
    """Random actions of payers and operators; each is valid when it is done."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.gateway = world.register(Role.GATEWAY)
        self.workers = [world.register(Role.WORKER) for _ in range(2)]
        self.payers = [world.rich() for _ in range(2)]
        self.sessions: list[tuple[LocalAccount, bytes]] = []
        for payer in self.payers:
            world.deposit(payer, 1000 * CREDIT)
        world.send(self.gateway, world.chain.models.publish(MODEL, "bafkfirst", 6))

    def do(self, count: int) -> None:
        for _ in range(count):
            self.random.choice(
                [self.deposit, self.open, self.close, self.offer, self.stake, self.unstake, self.publish]
            )()

    def deposit(self) -> None:
        self.world.deposit(self.random.choice(self.payers), self.random.randint(1, CREDIT))

    def open(self) -> None:
        payer = self.random.choice(self.payers)
        session = self.world.open_session(payer, self.gateway, new_account(), self.random.randint(1, CREDIT))
        self.sessions.append((payer, session))

    def close(self) -> None:
        if self.sessions:
            payer, session = self.sessions.pop()
            self.world.send(payer, self.world.chain.ledger.close_session(session))

    def offer(self) -> None:
        first = self.random.randint(0, 4)
        offer = Offer(first, self.random.randint(first + 1, 6), 0, 0, self.random.randint(0, 10**20), 3)
        self.world.send(self.random.choice(self.workers), self.world.chain.nodes.set_offer(model_id(MODEL), offer))

    def stake(self) -> None:
        worker = self.random.choice(self.workers)
        self.world.send(worker, self.world.chain.token.approve(self.world.chain.nodes.address, CREDIT))
        self.world.send(worker, self.world.chain.nodes.add_stake(CREDIT))

    def unstake(self) -> None:
        worker = self.random.choice(self.workers)
        self.world.send(worker, self.world.chain.nodes.begin_unstake(self.random.randint(1, CREDIT)))

    def publish(self) -> None:
        call = self.world.chain.models.publish(MODEL, f"bafk{self.random.randint(0, 9)}", self.random.randint(1, 9))
        self.world.send(self.gateway, call)


def assert_equal_to_views(state: ChainState, world: World, deeds: Deeds) -> None:
    chain = world.chain
    for operator in [deeds.gateway.address, *(worker.address for worker in deeds.workers)]:
        assert state.nodes[operator] == chain.nodes.node(operator)
    for worker in deeds.workers:
        offer = state.offers.get((worker.address, model_id(MODEL), 0))
        view = chain.nodes.offer(worker.address, model_id(MODEL), 0)
        assert offer == view if offer else view.end_layer == 0
    for session, indexed in state.sessions.items():
        assert indexed == chain.ledger.session(session)
    for payer in deeds.payers:
        assert state.balances[payer.address] == chain.ledger.balance_of(payer.address)
    versions = state.models[model_id(MODEL)].versions
    assert len(versions) == chain.models.num_versions(model_id(MODEL))
    for number, version in enumerate(versions):
        view_of_version = chain.models.version(model_id(MODEL), number)
        assert (version.manifest_cid, version.num_layers) == (view_of_version.manifest_cid, view_of_version.num_layers)


def test_the_index_equals_the_views(world: World, tmp_path: Path) -> None:
    deeds = Deeds(world, seed=7)
    index = EventIndex(tmp_path / "index.db", world.chain)
    for _ in range(3):
        deeds.do(8)
        assert_equal_to_views(index.sync(), world, deeds)
    index.close()

    again = EventIndex(tmp_path / "index.db", world.chain)
    assert again.state == index.state
    assert again.sync() == index.state
    again.close()


def test_a_reorganisation_is_followed(world: World, tmp_path: Path) -> None:
    deeds = Deeds(world, seed=8)
    index = EventIndex(tmp_path / "index.db", world.chain)
    deeds.do(5)
    before = index.sync()
    snapshot = rpc(world.chain, "evm_snapshot")
    sessions = list(deeds.sessions)
    deeds.do(8)
    orphaned = index.sync()
    assert orphaned != before
    rpc(world.chain, "evm_revert", snapshot)
    deeds.sessions = sessions
    deeds.random.seed(99)
    rpc(world.chain, "evm_increaseTime", "0x5")
    deeds.do(12)
    assert_equal_to_views(index.sync(), world, deeds)
    index.close()


def test_the_sentence_of_an_account_that_never_registered_stops_nobody(world: World, tmp_path: Path) -> None:
    anybody = world.rich()
    numbers = {"prompt_tokens": 1, "output_tokens": 1, "started_at": 1, "finished_at": 2}
    signed: list[InferenceReceipt | bytes] = []
    for cost in (1, 2):
        receipt = InferenceReceipt(
            assignment=bytes(32), node=anybody.address, inputs=bytes(32), outputs=bytes(32), cost=cost, **numbers
        )
        signed += [receipt, sign(receipt, world.chain.domain, anybody)]
    index = EventIndex(tmp_path / "index.db", world.chain)
    world.send(anybody, world.chain.court.prove_equivocation(*signed))
    worker = world.register(Role.WORKER)
    assert list(index.sync().nodes) == [worker.address]
    index.close()


def test_a_name_that_is_no_text_stops_nobody(world: World, tmp_path: Path) -> None:
    publish = world.chain.models.publish("mute", "bafkfirst", 6)
    world.send(world.rich(), replace(publish, data=publish.data.replace(b"mute", b"\xff\xfe\xfd\xfc")))
    index = EventIndex(tmp_path / "index.db", world.chain)
    (model,) = index.sync().models.values()
    assert (model.name, model.versions[0].manifest_cid) == ("\ufffd" * 4, "bafkfirst")
    index.close()


def test_an_index_of_another_deployment_begins_from_nothing(world: World, tmp_path: Path, chain_url: str) -> None:
    from declai.chain.client import Chain
    from declai.chain.deploy import deploy
    from declai.chain.parameters import Parameters

    Deeds(world, seed=9)
    index = EventIndex(tmp_path / "index.db", world.chain)
    assert index.sync().nodes
    index.close()
    other = Chain(chain_url, deploy(chain_url, world.treasury, Parameters(treasury=world.treasury.address)))
    index = EventIndex(tmp_path / "index.db", other)
    assert not index.sync().nodes
    index.close()
