"""Which tests run in one process when several run tests (`pytest -n 2 --dist loadscope`), and which begin first."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

# Files that share what is slow to start, or the folder that a tool builds in. Groups begin in this order, before all
# other files: what takes minutes must not be left to one process at the end.
GROUPS = {
    "forge": ("tests/contracts/test_forge.py", "tests/contracts/test_coverage.py"),
    "devnet": (
        "tests/declai/test_requester.py",
        "tests/declai/test_openai_client.py",
        "tests/declai/contributor/bench/test_bench.py",
        "tests/declai/contributor/doctor/test_doctor.py",
        "tests/docs/test_commands.py",
        "tests/package/test_network.py",
    ),
    "model of the contracts": ("tests/contracts/model/test_model.py",),
    "benchmarks": ("tests/test_benchmarks.py",),
    "nodes": ("tests/worker/node/test_node.py",),
    "hardhat": (),
}


def group_of(test: str) -> str:
    """A test's group by its node id: one of `GROUPS`, or its file alone."""
    if "[hardhat" in test:
        return "hardhat"
    file = test.partition("::")[0]
    return next((group for group, files in GROUPS.items() if file in files), file)


def place_of(test: str) -> int:
    """Where a test's group stands in the order in which groups begin."""
    return {group: place for place, group in enumerate(GROUPS)}.get(group_of(test), len(GROUPS))


class GroupScheduling(LoadScopeScheduling):
    """Hands whole groups to the processes, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
