"""How a receipt is judged, for every status and at the seconds where one ends and the next begins."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from declai.chain.contracts.court import Challenge, CourtParameters
from declai.chain.contracts.ledger import ZERO_ADDRESS, DirectClaim, LedgerParameters, SessionState
from declai.chain.state import SettledBatch
from declai.contributor.claims import Status as S
from declai.contributor.claims import Step as T
from declai.contributor.claims import Survey
from declai.protocol.receipt_checks import MAX_CLOCK_SKEW_S
from declai.worker.job.store import NodeStore, StoredReceipt
from tests.support.papers import DEADLINE, FINISHED_AT, Papers, settle

LEDGER = LedgerParameters(1000, 500, 500, 60, 300, 100, 7, 2000)
COURT = CourtParameters(2000, 50, 5000, 5000, 9, 5000, 2000, 1000)
FIRST, UNTIL = DEADLINE + 60, DEADLINE + 300  # of a direct claim
CHALLENGE_UNTIL = FINISHED_AT + 2000
ANYBODY = "0x" + "33" * 20
NO_CLAIM = DirectClaim(ZERO_ADDRESS, 0, bytes(32), bytes(32), 0, 0, 0, False)
OPEN_CLAIM = replace(NO_CLAIM, node=ANYBODY, amount=10**18, pays_at=FIRST + 100)
PAID_CLAIM = replace(OPEN_CLAIM, pays_at=0)
PARTLY_PAID_CLAIM = replace(PAID_CLAIM, amount=5)
FALLEN_CLAIM = replace(PAID_CLAIM, amount=0)
NO_CHALLENGE = Challenge(ZERO_ADDRESS, 0, ZERO_ADDRESS, 0)
OPEN_CHALLENGE = Challenge(ANYBODY, FIRST + 50, ANYBODY, 5)
OVER_CHALLENGE = replace(OPEN_CHALLENGE, decided_at=0)
SESSION = SessionState(payer=ANYBODY, ends_at=UNTIL)
TAKEN = replace(SESSION, settled=5)
CLOSED = SessionState()
ENDED_EARLY = replace(SESSION, ends_at=FIRST + 10 - LEDGER.thaw_period_s)


@dataclass(frozen=True)
class Case:
    """What the chain says, at which second, and about which receipt."""

    now: int
    claim: DirectClaim = NO_CLAIM
    challenge: Challenge = NO_CHALLENGE
    session: SessionState = SESSION
    accepted: bool = True
    left_out: bool = False
    unread_at: int = 0  # a batch that nobody can read, and may pay the receipt, was settled then
    acknowledged: int = 0  # by the session's next request, in base units

    def survey(self, papers: Papers, kept: StoredReceipt, **options: Any) -> Survey:
        ledger = SimpleNamespace(
            parameters=lambda: LEDGER, direct_claim=lambda _: self.claim, session=lambda _: self.session
        )
        court = SimpleNamespace(parameters=lambda: COURT, challenge=lambda *_: self.challenge)
        times = {"latest": self.now, UNREAD_BLOCK: self.unread_at}
        chain: Any = SimpleNamespace(timestamp=lambda at="latest": times[at], ledger=ledger, court=court)
        unreadable = [unread(papers, kept)] if self.unread_at else []
        jobs = [papers.job(papers.request(2, 2, self.acknowledged))]
        return Survey(chain, unreadable, jobs=jobs, **options)


UNREAD_BLOCK = 7


def unread(papers: Papers, kept: StoredReceipt) -> SettledBatch:
    return settle(papers, [kept.job.request], [kept]).batch


@pytest.fixture(scope="module")
def papers() -> Papers:
    return Papers()


@pytest.fixture(scope="module")
def receipt(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoredReceipt]:
    store = NodeStore(tmp_path_factory.mktemp("survey") / "node.db")
    yield papers.keep(store, papers.request())
    store.close()


def about(case: Case, receipt: StoredReceipt) -> StoredReceipt:
    return replace(receipt, acceptance=b"a" * 65 if case.accepted else None, left_out=case.left_out)


CASES = [
    # The gateway has its time, then the node has its own.
    (Case(FINISHED_AT), S.WAITING, None, FIRST),
    (Case(FIRST - 1), S.WAITING, None, FIRST),
    (Case(FIRST, accepted=False), S.CLAIMABLE, T.CLAIM, UNTIL),
    (Case(UNTIL), S.CLAIMABLE, T.CLAIM, UNTIL),
    (Case(UNTIL + 1, accepted=False), S.LATE, None, 0),
    (Case(UNTIL + 1), S.CHALLENGEABLE, T.CHALLENGE, CHALLENGE_UNTIL),
    (Case(CHALLENGE_UNTIL), S.CHALLENGEABLE, T.CHALLENGE, CHALLENGE_UNTIL),
    (Case(CHALLENGE_UNTIL + 1), S.LATE, None, 0),
    # A session that ends early, or has.
    (Case(FIRST + 10, session=ENDED_EARLY), S.CLAIMABLE, T.CLAIM, FIRST + 10),
    (Case(FIRST + 11, session=ENDED_EARLY), S.CHALLENGEABLE, T.CHALLENGE, CHALLENGE_UNTIL),
    (Case(FIRST + 11, session=ENDED_EARLY, accepted=False), S.LATE, None, 0),
    (Case(FIRST - 1, session=CLOSED), S.CHALLENGEABLE, T.CHALLENGE, CHALLENGE_UNTIL),
    (Case(FIRST, session=CLOSED, accepted=False), S.LATE, None, 0),
    # A claim: under way, payable, paid, fallen.
    (Case(FIRST + 99, claim=OPEN_CLAIM), S.CLAIMED, None, FIRST + 100),
    (Case(FIRST + 100, claim=OPEN_CLAIM), S.CLAIMED, T.PAY, FIRST + 100),
    (Case(CHALLENGE_UNTIL + 1, claim=OPEN_CLAIM), S.CLAIMED, T.PAY, FIRST + 100),
    (Case(FIRST + 99, claim=OPEN_CLAIM, acknowledged=5), S.CLAIMED, T.LIFT, FIRST + 100),
    (Case(FIRST + 100, claim=replace(OPEN_CLAIM, cap=5), acknowledged=5), S.CLAIMED, T.PAY, FIRST + 100),
    (Case(FIRST + 100, claim=OPEN_CLAIM, acknowledged=5, session=TAKEN), S.CLAIMED, T.PAY, FIRST + 100),
    (Case(FIRST + 100, claim=PAID_CLAIM), S.ENDED, None, 0),
    (Case(FIRST + 100, claim=PARTLY_PAID_CLAIM), S.CHALLENGEABLE, T.CHALLENGE, CHALLENGE_UNTIL),
    (Case(FIRST + 100, claim=PARTLY_PAID_CLAIM, accepted=False), S.ENDED, None, 0),
    (Case(FIRST + 100, claim=FALLEN_CLAIM), S.CHALLENGEABLE, T.CHALLENGE, CHALLENGE_UNTIL),
    (Case(FIRST + 100, claim=FALLEN_CLAIM, accepted=False), S.REFUSED, None, 0),
    # Left out: no direct claim, for it would fall.
    (Case(FINISHED_AT, left_out=True), S.CHALLENGEABLE, T.CHALLENGE, CHALLENGE_UNTIL),
    (Case(FIRST, left_out=True, accepted=False), S.REFUSED, None, 0),
    (Case(CHALLENGE_UNTIL + 1, left_out=True), S.LATE, None, 0),
    # A challenge: open, to be decided, over.
    (Case(FIRST + 49, challenge=OPEN_CHALLENGE), S.CHALLENGED, None, FIRST + 50),
    (Case(FIRST + 50, challenge=OPEN_CHALLENGE), S.CHALLENGED, T.DECIDE, FIRST + 50),
    (Case(FIRST + 50, challenge=OVER_CHALLENGE), S.ENDED, None, 0),
    (Case(FIRST + 50, challenge=OPEN_CHALLENGE, claim=FALLEN_CLAIM), S.CHALLENGED, T.DECIDE, FIRST + 50),
    # A batch that nobody can read may have paid it, unless it was settled before the work was done.
    (Case(FIRST, unread_at=FINISHED_AT), S.UNKNOWN, None, 0),
    (Case(FINISHED_AT + 3, left_out=True, unread_at=FIRST), S.UNKNOWN, None, 0),
    (Case(FIRST, unread_at=FINISHED_AT - MAX_CLOCK_SKEW_S), S.UNKNOWN, None, 0),
    (Case(FIRST, unread_at=FINISHED_AT - MAX_CLOCK_SKEW_S - 1), S.CLAIMABLE, T.CLAIM, UNTIL),
    (Case(FIRST + 100, claim=OPEN_CLAIM, unread_at=FIRST), S.CLAIMED, T.PAY, FIRST + 100),
    (Case(FIRST + 50, challenge=OPEN_CHALLENGE, unread_at=FIRST), S.CHALLENGED, T.DECIDE, FIRST + 50),
]


@pytest.mark.parametrize(("case", "status", "step", "at"), CASES, ids=range(len(CASES)))
def test_each_status_at_its_seconds(
    papers: Papers, receipt: StoredReceipt, case: Case, status: S, step: T | None, at: int
) -> None:
    kept = about(case, receipt)
    owed = case.survey(papers, kept).judge(kept)
    assert (owed.status, owed.step, owed.at) == (status, step, at)
    assert owed.bond == {T.CLAIM: LEDGER.claim_bond, T.CHALLENGE: COURT.challenge_bond}.get(step, 0)  # type: ignore[arg-type]


def test_every_status_has_a_case() -> None:
    assert {status for _, status, _, _ in CASES} == set(S)
    assert {step for _, _, step, _ in CASES} == {None, *T}


def test_whoever_believes_that_unread_batches_paid_nothing_goes_on(papers: Papers, receipt: StoredReceipt) -> None:
    case = Case(FIRST, unread_at=FIRST)
    assert case.survey(papers, receipt, believe_unread=True).judge(receipt).step is T.CLAIM


def test_what_costs_nothing_is_owed_nothing(papers: Papers, tmp_path: Path) -> None:
    store = NodeStore(tmp_path / "node.db")
    gift = papers.keep(store, papers.request(2), accepted=True, price=0)
    for now in (FINISHED_AT, FIRST, UNTIL + 1):
        assert Case(now).survey(papers, gift).judge(gift).status is S.ENDED
    store.close()


def all_cases() -> Iterator[Case]:
    seconds = [FIRST, UNTIL, CHALLENGE_UNTIL, OPEN_CLAIM.pays_at, OPEN_CHALLENGE.decided_at, FIRST + 10]
    return itertools.starmap(
        Case,
        itertools.product(
            sorted({at + shift for at in seconds for shift in (-1, 0, 1)}),
            (NO_CLAIM, OPEN_CLAIM, PAID_CLAIM, PARTLY_PAID_CLAIM, FALLEN_CLAIM),
            (NO_CHALLENGE, OPEN_CHALLENGE, OVER_CHALLENGE),
            (SESSION, CLOSED, ENDED_EARLY),
            (False, True),
            (False, True),
            (0, FIRST),
        ),
    )


def test_no_step_is_ever_taken_that_a_contract_refuses(papers: Papers, receipt: StoredReceipt) -> None:
    batch = unread(papers, receipt)
    for case in all_cases():
        kept = about(case, receipt)
        survey = case.survey(papers, kept)
        owed = survey.judge(kept)
        now, step = case.now, owed.step
        if step is T.CLAIM:
            assert case.claim is NO_CLAIM
            assert case.challenge is NO_CHALLENGE
            assert case.session.exists
            assert FIRST <= now <= min(UNTIL, case.session.ends_at + LEDGER.thaw_period_s)
            assert not case.left_out
        if step is T.CHALLENGE:
            assert case.accepted
            assert case.claim in (NO_CLAIM, PARTLY_PAID_CLAIM, FALLEN_CLAIM)
            assert case.challenge is NO_CHALLENGE
            assert now <= CHALLENGE_UNTIL
        if step in (T.CLAIM, T.CHALLENGE):
            assert not case.unread_at, f"{batch.root!r} may have paid it"
        assert (step is T.PAY) == (case.claim is OPEN_CLAIM and now >= OPEN_CLAIM.pays_at)
        if step is T.DECIDE:
            assert now >= OPEN_CHALLENGE.decided_at
        # What may still change is never closed.
        if survey.is_over(owed):
            assert step is None
            assert now > max(UNTIL + LEDGER.claim_window_s, CHALLENGE_UNTIL + COURT.answer_period_s)
