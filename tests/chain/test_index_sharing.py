"""Commands of one user share an index: several processes follow the chain in one file."""

from __future__ import annotations

import threading
from pathlib import Path

from declai.chain.client import Chain
from declai.chain.contracts.nodes import Role
from declai.chain.index import EventIndex
from tests.support.world import World


def test_what_another_process_read_is_not_missed(world: World, tmp_path: Path) -> None:
    first = EventIndex(tmp_path / "index.db", world.chain)
    first.sync()
    operator = world.register(Role.WORKER).address
    other = EventIndex(tmp_path / "index.db", world.chain)
    assert operator in other.sync().nodes
    # The first one finds nothing new to read, and must know it all the same.
    assert first.sync() == other.sync()
    assert operator in first.state.nodes
    first.close()
    other.close()


def test_all_may_begin_at_once(world: World, tmp_path: Path) -> None:
    operator = world.register(Role.WORKER).address
    together, found = threading.Barrier(6), []

    def follow() -> None:
        chain = Chain(world.chain.rpc_url, world.chain.deployment)
        together.wait()
        index = EventIndex(tmp_path / "index.db", chain)
        found.append(operator in index.sync().nodes)
        index.close()

    threads = [threading.Thread(target=follow) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 6
