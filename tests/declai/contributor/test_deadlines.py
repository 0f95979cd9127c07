"""The survey against the contracts themselves: both say yes and no at the same second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount
from hexbytes import HexBytes
from web3.exceptions import ContractLogicError

from declai.chain.contracts.binding import Call
from declai.chain.contracts.ledger import SignedWork
from declai.chain.contracts.nodes import Role
from declai.chain.messages import digest, new_account
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.contributor.claims import Collector, Status, Step, Survey
from declai.protocol.receipts import cost_of
from declai.worker.job.store import NodeStore, StoredReceipt
from tests.support.desks import Desk
from tests.support.papers import Papers


@dataclass
class Work:
    """A registered node with papers of a real session, and its store."""

    desk: Desk
    papers: Papers
    operator: LocalAccount
    store: NodeStore

    def go_to(self, second: int) -> None:
        """Mine a block of exactly this time."""
        for method, parameters in (("evm_setNextBlockTimestamp", [second]), ("evm_mine", [])):
            self.desk.chain.w3.provider.make_request(method, parameters)  # type: ignore[arg-type]
        assert self.desk.chain.timestamp() == second

    def judged(self, kept: StoredReceipt) -> tuple[Status, Step | None]:
        owed = Survey(self.desk.chain).judge(kept)
        return owed.status, owed.step

    def take(self, kept: StoredReceipt) -> None:
        """The step that is due."""
        Collector(self.desk.chain, self.operator).take(Survey(self.desk.chain).judge(kept))

    def allows(self, step: Step, kept: StoredReceipt) -> bool:
        """Whether the contract would let the operator take a step in the newest block."""
        job, chain = kept.job, self.desk.chain
        receipt = kept.receipt.receipt
        work = SignedWork(job.request, job.request_signature, job.assignment, job.assignment_signature)
        calls: dict[Step, Call] = {
            Step.CLAIM: chain.ledger.open_claim(work, receipt),
            Step.PAY: chain.ledger.pay_claim(job.request.session, job.assignment_digest),
            Step.CHALLENGE: chain.court.challenge_payout(job.gateway.address, receipt, kept.acceptance or b""),
            Step.DECIDE: chain.court.decide_challenge(job.gateway.address, digest(receipt, chain.domain)),
        }
        call = calls[step]
        assert call.to is not None
        try:
            chain.w3.eth.call({"from": self.operator.address, "to": call.to, "data": HexBytes(call.data)})
        except ContractLogicError:
            return False
        return True


@pytest.fixture
def work(desk: Desk, tmp_path: Path) -> Iterator[Work]:
    world, chain = desk.world, desk.chain
    papers = Papers(domain=chain.domain)
    gateway, payer = world.register(Role.GATEWAY, papers.gateway_signer), world.rich()
    operator = world.register(Role.WORKER, papers.signer)
    for account in (payer, operator):
        world.deposit(account, 10 * UNITS_PER_CREDIT)
    world.send(operator, chain.token.approve(chain.court.address, 10 * UNITS_PER_CREDIT))
    papers.session = world.open_session(payer, gateway, papers.key, UNITS_PER_CREDIT, 30 * 86_400)
    papers.gateway, papers.node = gateway.address, operator.address
    papers.finished_at = chain.timestamp() + 100
    papers.deadline = papers.finished_at + 600
    store = NodeStore(tmp_path / "node.db")
    yield Work(desk, papers, operator, store)
    store.close()


def test_a_claim_and_then_a_challenge_of_one_receipt(work: Work) -> None:
    ledger, court = work.desk.chain.ledger.parameters(), work.desk.chain.court.parameters()
    kept = work.papers.keep(work.store, work.papers.request(), accepted=True)
    first = work.papers.deadline + ledger.claim_delay_s
    until = work.papers.deadline + ledger.claim_period_s
    challenge_until = work.papers.finished_at + court.challenge_period_s
    for second, status, claims, challenges in (
        (first - 1, Status.WAITING, False, True),
        (first, Status.CLAIMABLE, True, True),
        (until, Status.CLAIMABLE, True, True),
        (until + 1, Status.CHALLENGEABLE, False, True),
        (challenge_until, Status.CHALLENGEABLE, False, True),
        (challenge_until + 1, Status.LATE, False, False),
    ):
        work.go_to(second)
        found, step = work.judged(kept)
        assert found is status
        assert work.allows(Step.CLAIM, kept) is claims is (step is Step.CLAIM)
        # It would be allowed all the time; the survey asks the payer's session first.
        assert work.allows(Step.CHALLENGE, kept) is challenges
        assert (step is Step.CHALLENGE) is (status is Status.CHALLENGEABLE)


def test_claim_and_challenge_under_way(work: Work) -> None:
    ledger, court = work.desk.chain.ledger.parameters(), work.desk.chain.court.parameters()
    claimed = work.papers.keep(work.store, work.papers.request(1))
    challenged = work.papers.keep(work.store, work.papers.request(2), accepted=True)
    work.store.note_batch(b"r" * 32, [], [challenged.job.job_id])
    challenged = next(kept for kept in work.store.unpaid() if kept.left_out)
    work.go_to(work.papers.deadline + ledger.claim_delay_s)
    for kept in (claimed, challenged):
        work.take(kept)
    opened_at = work.desk.chain.timestamp()
    assert work.judged(claimed) == (Status.CLAIMED, None)
    assert work.judged(challenged) == (Status.CHALLENGED, None)
    chain = work.desk.chain
    pays_at = chain.ledger.direct_claim(claimed.job.assignment_digest).pays_at
    decided_at = chain.court.challenge(work.papers.gateway, digest(challenged.receipt.receipt, chain.domain)).decided_at
    assert abs(pays_at - opened_at - ledger.claim_window_s) <= 2
    assert abs(decided_at - opened_at - court.answer_period_s) <= 2
    under_way = [(claimed, pays_at, Step.PAY, Status.CLAIMED), (challenged, decided_at, Step.DECIDE, Status.CHALLENGED)]
    for second in sorted({pays_at - 1, pays_at, decided_at - 1, decided_at}):
        work.go_to(second)
        for kept, due, step, status in under_way:
            assert work.judged(kept) == (status, step if second >= due else None)
            assert work.allows(step, kept) is (second >= due)
    for kept in (claimed, challenged):
        work.take(kept)
        assert work.judged(kept) == (Status.ENDED, None)
    cost = claimed.receipt.receipt.cost
    assert chain.ledger.balance_of(work.operator.address) == 10 * UNITS_PER_CREDIT + cost
    assert chain.court.balance_of(work.operator.address) == court.challenge_bond + challenged.receipt.receipt.cost


def test_a_receipt_is_claimed_or_challenged_never_both(work: Work) -> None:
    first = work.papers.deadline + work.desk.chain.ledger.parameters().claim_delay_s
    claimed = work.papers.keep(work.store, work.papers.request(1), accepted=True)
    work.go_to(first)
    work.take(claimed)
    for step in (Step.CLAIM, Step.CHALLENGE):
        assert not work.allows(step, claimed)


def test_a_later_request_lifts_a_claim_that_later_pay_left_nothing(work: Work) -> None:
    """No batch paid any of three requests, and the session pays the claim on the second before the one on the first."""
    chain, ledger, papers = work.desk.chain, work.desk.chain.ledger.parameters(), work.papers
    cost = cost_of(papers.job(papers.request()).assignment, papers.request(), 5, 7)
    requests = [papers.request(n + 1, n + 1, n * cost).model_copy(update={"max_cost": cost}) for n in range(3)]
    first, second, third = (papers.keep(work.store, request) for request in requests)
    survey = partial(Survey, chain, jobs=[kept.job for kept in (first, second, third)])
    collector = Collector(chain, work.operator)
    work.go_to(work.papers.deadline + ledger.claim_delay_s)
    for kept in (second, first):
        collector.take(survey().judge(kept))
    assert survey().judge(second).step is None  # nothing beyond its own cap is acknowledged
    lifted = survey().judge(first)
    assert (lifted.status, lifted.step) == (Status.CLAIMED, Step.LIFT)
    collector.take(lifted)
    assert survey().judge(first).step is None
    work.go_to(chain.timestamp() + ledger.claim_window_s)
    for kept in (second, first):
        collector.take(survey().judge(kept))
        assert chain.ledger.direct_claim(kept.job.assignment_digest).amount == cost


def test_only_the_node_and_its_signer_open_claims(work: Work) -> None:
    kept = work.papers.keep(work.store, work.papers.request())
    work.go_to(work.papers.deadline + work.desk.chain.ledger.parameters().claim_delay_s)
    owed = Survey(work.desk.chain).judge(kept)
    stranger = new_account()
    with pytest.raises(Exception, match=f"{stranger.address} is not {work.operator.address} or its signer"):
        Collector(work.desk.chain, stranger).take(owed)
    signer = work.desk.world.rich()
    work.desk.world.send(work.operator, work.desk.chain.nodes.set_signer(signer.address))
    Collector(work.desk.chain, signer).take(owed)
    assert work.judged(kept) == (Status.CLAIMED, None)
