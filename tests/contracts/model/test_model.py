"""The contracts do what the protocol says, deed by deed, whatever order the deeds come in.

`--hypothesis-profile thorough` plays many more games, not always the same ones. A game that fails is printed as the
moves that repeat it, each with what came of it.
"""

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
    max_examples=14,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
THOROUGH = settings(QUICK, max_examples=400, derandomize=False)
# Without shrinking: that there is a failure is enough.
TOLD_WRONG = settings(QUICK, max_examples=30, phases=[Phase.generate])

# Games in which these never succeed would show little.
MUST_HAPPEN = (
    *("InferenceLedger.settle", "InferenceLedger.openClaim", "InferenceLedger.payClaim"),
    *("InferenceLedger.voidByAcknowledgement", "InferenceLedger.finalizeClose", "InferenceLedger.closeTogether"),
    *("DisputeCourt.challengePayout", "DisputeCourt.decideChallenge", "DisputeCourt.proveEquivocation"),
    "NodeRegistry.withdraw",
)
NEARLY = ("claim_delay_s", "claim_bond", "lock_multiple", "fine_bps")


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    folder = tmp_path_factory.mktemp("model")
    with start_chain(folder) as rpc_url:
        bench = Bench(rpc_url, folder)
        yield Play(bench)
        bench.close()


@pytest.mark.timeout(3_600)
def test_the_chain_does_what_the_model_says(play: Play) -> None:
    thorough = settings.get_current_profile_name() == "thorough"
    run_state_machine_as_test(lambda: Market(play), settings=THOROUGH if thorough else QUICK)
    done = {deed for deed, error in play.seen if not error}
    assert done.issuperset(MUST_HAPPEN), sorted(play.seen.items())


@pytest.mark.parametrize("parameter", NEARLY)
def test_a_rule_that_is_nearly_right_is_noticed(play: Play, parameter: str) -> None:
    """The model holds the contracts to the second and to the unit."""
    play.misinformation = {parameter: getattr(play.model.parameters, parameter) + 1}
    with pytest.raises(AssertionError):
        run_state_machine_as_test(lambda: Market(play), settings=TOLD_WRONG)
