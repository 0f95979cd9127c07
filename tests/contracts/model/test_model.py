"""The contracts do what the protocol says, deed by deed, whatever order the deeds come in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from declai.devnet.processes import start_chain
from tests.contracts.model.bench import Bench
from tests.contracts.model.machine import Market
from tests.contracts.model.play import Play

QUICK = settings(
    max_examples=24,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    folder = tmp_path_factory.mktemp("model")
    with start_chain(folder) as rpc_url:
        bench = Bench(rpc_url, folder)
        yield Play(bench)
        bench.close()


@pytest.mark.timeout(600)
def test_the_chain_does_what_the_model_says(play: Play) -> None:
    run_state_machine_as_test(lambda: Market(play), settings=QUICK)
    print(*sorted(play.seen.items()), sep="\n")
