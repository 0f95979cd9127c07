"""Sending: no nonce twice, no transaction lost or doubled, whatever the node or another process does meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from declai.chain.errors import ContractRevert, NonceTaken, TransactionUnconfirmed
from declai.chain.sender import TransactionSender
from tests.support.world import World, rpc

pytestmark = pytest.mark.every_chain

CREDIT = 10**18


@contextmanager
def mining_off(world: World) -> Iterator[None]:
    rpc(world.chain, "evm_setAutomine", False)
    try:
        yield
    finally:
        rpc(world.chain, "evm_setAutomine", True)
        rpc(world.chain, "evm_mine")


def test_threads_share_an_account_without_losing_a_transaction(world: World) -> None:
    account, target = world.rich(), world.rich(0).address
    errors: list[BaseException] = []

    def work() -> None:
        try:
            sender = TransactionSender(world.chain, account)
            for _ in range(5):
                sender.send(world.chain.token.transfer(target, CREDIT))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert world.chain.token.balance_of(target) == 20 * CREDIT


def test_a_refused_call_names_the_contracts_error_and_sends_nothing(world: World) -> None:
    account = world.rich(CREDIT)
    before = world.chain.w3.eth.get_transaction_count(account.address)
    with pytest.raises(ContractRevert) as caught:
        TransactionSender(world.chain, account).send(world.chain.ledger.withdraw(5))
    assert caught.value.name == "InferenceLedgerInsufficientBalance"
    assert caught.value.values["amount"] == 5
    assert world.chain.w3.eth.get_transaction_count(account.address) == before


def test_broadcasting_again_is_harmless(world: World) -> None:
    account, target = world.rich(), world.rich(0).address
    sender = TransactionSender(world.chain, account)
    transaction = sender.prepare(world.chain.token.transfer(target, CREDIT))
    for _ in range(3):
        sender.broadcast(transaction)
    sender.confirm([transaction])
    sender.broadcast(transaction.raw)
    assert world.chain.token.balance_of(target) == CREDIT


def test_a_stuck_transaction_is_replaced_and_only_one_is_mined(world: World) -> None:
    account, target = world.rich(), world.rich(0).address
    sender = TransactionSender(world.chain, account)
    with mining_off(world):
        first = sender.prepare(world.chain.token.transfer(target, CREDIT))
        sender.broadcast(first)
        with pytest.raises(TransactionUnconfirmed):
            sender.confirm([first], timeout_s=0.2)
        second = sender.bump(first.raw)
        assert second.nonce == first.nonce
        sender.broadcast(second)
    receipt = sender.confirm([first, second])
    assert bytes(receipt["transactionHash"]) == second.hash
    assert world.chain.token.balance_of(target) == CREDIT
    with pytest.raises(NonceTaken):
        sender.broadcast(first)


def test_depth_counts_blocks_and_a_reorganisation_takes_a_receipt_back(world: World) -> None:
    account, target = world.rich(), world.rich(0).address
    sender = TransactionSender(world.chain, account, depth=3)
    snapshot = rpc(world.chain, "evm_snapshot")
    transaction = sender.prepare(world.chain.token.transfer(target, CREDIT))
    sender.broadcast(transaction)
    assert sender.confirm([transaction], depth=1)["status"] == 1
    assert sender.mined([transaction.hash], 3) is None
    rpc(world.chain, "hardhat_mine", "0x2")
    assert sender.confirm([transaction])["status"] == 1
    rpc(world.chain, "evm_revert", snapshot)
    assert sender.mined([transaction.hash], 1) is None
    sender.broadcast(transaction)
    sender.confirm([transaction], depth=1)
    rpc(world.chain, "hardhat_mine", "0x2")
    assert sender.confirm([transaction])["status"] == 1
    assert world.chain.token.balance_of(target) == CREDIT
