"""What is brought before the court by signatures alone: unpaid receipts, and two receipts for one assignment."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from chain.messages import Acceptance
from tests.contracts.model import court
from tests.contracts.model.claim_moves import HAS_JOBS
from tests.contracts.model.jobs import inclusion, signature
from tests.contracts.model.payer_moves import ENTRIES
from tests.contracts.model.player import Player

HAS_CHALLENGES = precondition(lambda self: self.model.challenges)


class CourtMoves(Player):
    @HAS_JOBS
    @rule(who=ENTRIES, data=st.data())
    def challenge_payout(self, who: str, data: st.DataObject) -> None:
        job, stage = self.pick_stage(data)
        gateway = self.mostly(data, self.gateway_of(job.request.session), "gateway", "rival")
        receipt, by = stage.receipt, None if self.seldom(data) else stage.accepted_by
        if self.seldom(data):
            receipt = receipt.model_copy(update={"output_tokens": receipt.output_tokens + 1})
        if self.seldom(data):
            self.wait_for(data, receipt.finished_at + self.model.parameters.challenge_period_s)
        acceptance = Acceptance(receipt=self.hash_of(receipt))
        signed = signature(acceptance, self.model.domain, by, self.play.bench.keys)
        call = self.chain.court.challenge_payout(gateway, receipt, signed)
        self.play.do(self.who(who), call, court.challenge_payout, gateway, receipt, by)

    @precondition(lambda self: self.model.challenges and self.batches)
    @rule(who=ENTRIES, data=st.data())
    def answer_challenge(self, who: str, data: st.DataObject) -> None:
        receipt = self._pick_challenge(data)
        place = self.place_of(data, receipt, self.model.challenges[receipt].amount)
        if place is not None:
            call = self.chain.court.answer_challenge(receipt, inclusion(place))
            self.play.do(self.who(who), call, court.answer_challenge, receipt, place)

    @HAS_CHALLENGES
    @rule(who=ENTRIES, data=st.data())
    def decide_challenge(self, who: str, data: st.DataObject) -> None:
        receipt = self._pick_challenge(data)
        self.wait_for(data, self.model.challenges[receipt].decided_at or 0)
        self.play.do(self.who(who), self.chain.court.decide_challenge(receipt), court.decide_challenge, receipt)

    @HAS_JOBS
    @rule(who=ENTRIES, data=st.data())
    def prove_equivocation(self, who: str, data: st.DataObject) -> None:
        _, stage = self.pick_stage(data)
        first, second = stage.receipt, stage.receipt.model_copy(update={"outputs": b"\1" * 32})
        if self.seldom(data):
            second = self.pick(data, [first, second.model_copy(update={"assignment": bytes(32)})])
        signer = self.model.nodes[first.node].signer or first.node
        by = (self.mostly(data, signer, "worker", "rival", "worker's signer"), self.mostly(data, signer, "new signer"))
        signed = [
            signature(receipt, self.model.domain, account, self.play.bench.keys)
            for receipt, account in zip((first, second), by, strict=True)
        ]
        call = self.chain.court.prove_equivocation(first, signed[0], second, signed[1])
        self.play.do(self.who(who), call, court.prove_equivocation, first, by[0], second, by[1])

    @precondition(lambda self: self.model.awards)
    @rule(who=st.one_of(ENTRIES, st.just("treasury")))
    def withdraw_award(self, who: str) -> None:
        self.play.do(self.who(who), self.chain.court.withdraw(), court.withdraw)

    def _pick_challenge(self, data: st.DataObject) -> bytes:
        under_way = [key for key, challenge in self.model.challenges.items() if challenge.decided_at is not None]
        known = under_way if under_way and not self.seldom(data) else list(self.model.challenges)
        return self.pick(data, known[-3:])
