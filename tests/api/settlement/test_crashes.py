"""The settling process is killed (SIGKILL) around each of its steps; the next run pays every receipt exactly once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_account import Account

from declai.api.settlement.settle import Settlement
from declai.api.store.store import Store
from declai.chain.client import Chain, Deployment
from declai.chain.sender import TransactionSender
from declai.ipfs.store import BlockStore
from tests.support.books import Books, Market

# (where, step, whether the step itself is still done). What lies between two of these changes nothing durable.
POINTS: list[tuple[type, str, bool]] = [
    (BlockStore, "add", False),
    (BlockStore, "pin", False),
    (Store, "plan_batch", False),
    (TransactionSender, "prepare", False),
    (Store, "set_transactions", False),
    (TransactionSender, "broadcast", False),
    (TransactionSender, "broadcast", True),
    (TransactionSender, "confirm", False),
    (Store, "confirm_batch", False),
    (Store, "confirm_batch", True),
]


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.support.books"])


@dataclass(frozen=True)
class Job:
    """All that a settling process needs, in a form that can be handed to one."""

    rpc_url: str
    deployment: Deployment
    gateway: str
    signer_key: bytes
    folder: Path
    store_url: str

    def settlement(self, store: Store) -> Settlement:
        return Settlement(
            store,
            BlockStore(self.folder / "blocks"),
            Chain(self.rpc_url, self.deployment),
            Account.from_key(self.signer_key),
            gateway=self.gateway,
            depth=1,
            max_claims=200,
            max_receipts=20_000,
            lock_path=self.folder / "settlement.lock",
        )


def settle_until_killed(job: Job, owner: type, step: str, after: bool) -> None:
    """The body of the child: settle, and die without a word before (or after) the first call of a step."""
    whole = getattr(owner, step)

    def deadly(*arguments: object, **named: object) -> object:
        if after:
            whole(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    setattr(owner, step, deadly)
    job.settlement(Store(job.store_url)).run()


@pytest.mark.parametrize(
    ("owner", "step", "after"), POINTS, ids=[f"{'after' if after else 'before'}-{step}" for _, step, after in POINTS]
)
def test_a_kill_at_any_step_loses_no_receipt_and_pays_none_twice(
    open_books: Callable[..., Books],
    market: Market,
    tmp_path: Path,
    store_url: str,
    owner: type,
    step: str,
    after: bool,
) -> None:
    books = open_books()
    sessions = [market.open_session() for _ in range(2)]
    running = books.admit(sessions[0])
    served = {session: [books.serve(session) for _ in range(2)] for session in sessions}
    before = market.balances()

    key = bytes(market.gateway.signer.key)
    job = Job(market.chain.rpc_url, market.chain.deployment, market.gateway.address, key, tmp_path, store_url)
    child = PROCESSES.Process(target=settle_until_killed, args=(job, owner, step, after))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL, f"the child ended with {child.exitcode}, not at {step}"

    # Life goes on between the crash and the next run.
    served[sessions[0]].append((running.request, books.finish(running)))
    served[sessions[1]].append(books.serve(sessions[1]))
    settlement = job.settlement(books.store)
    batches = settlement.run()
    assert settlement.run() == []

    for session, rows in served.items():
        assert market.session(session).settled == sum(cost for _, cost in rows)
    earned = {node.address: 0 for node in market.nodes} | {market.gateway.address: 0}
    for request, _ in (row for rows in served.values() for row in rows):
        stored = books.store.request(request)
        assert stored is not None
        assert stored.batch is not None
        earned[market.gateway.address] += stored.fee
        for stage in books.store.request_stages(request):
            earned[stage.assignment.node] += stage.cost
    after_all = market.balances()
    assert {address: after_all[address] - before[address] for address in after_all} == earned
    assert 1 <= len(batches) <= 2
