"""What nodes do that were left out, and what others say against it: direct claims."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.contracts.model import claims
from tests.contracts.model.jobs import inclusion, signed_work
from tests.contracts.model.payer_moves import ENTRIES
from tests.contracts.model.play import CREDIT
from tests.contracts.model.player import Player

HAS_JOBS = precondition(lambda self: any(self.jobs.values()))
HAS_CLAIMS = precondition(lambda self: self.model.claims)


class ClaimMoves(Player):
    @HAS_JOBS
    @rule(data=st.data())
    def open_claim(self, data: st.DataObject) -> None:
        job, stage = self.pick_stage(data)
        p, deadline, session = self.model.parameters, stage.assignment.deadline, job.request.session
        last = deadline + p.claim_period_s
        if session in self.model.sessions:
            last = min(last, self.model.sessions[session].ends_at + p.session_thaw_s)
        self.wait_for(data, self.pick(data, [deadline + p.claim_delay_s] * 3 + [last, last + 1]))
        receipt = stage.receipt
        if self.seldom(data):
            receipt = receipt.model_copy(update={"cost": receipt.cost + self.pick(data, [1, CREDIT])})
        work = job.work(stage)
        if self.seldom(data):
            work = work._replace(**{self.pick(data, ["ordered_by", "assigned_by"]): None})
        signer = self.model.nodes[receipt.node].signer or receipt.node
        sender = self.mostly(data, self.pick(data, [signer, receipt.node]), "worker", "rival", "new signer")
        signed = signed_work(work, self.model.domain, self.play.bench.keys)
        self.play.do(sender, self.chain.ledger.open_claim(signed, receipt), claims.open_claim, work, receipt)

    @precondition(lambda self: self.model.claims and self.batches)
    @rule(who=ENTRIES, data=st.data())
    def void_by_inclusion(self, who: str, data: st.DataObject) -> None:
        assignment, session = self._pick_claim(data)
        claim = self.model.claims[assignment]
        place = self.place_of(data, claim.receipt, claim.amount)
        if place is not None:
            call = self.chain.ledger.void_by_inclusion(session, assignment, inclusion(place))
            self.play.do(self.who(who), call, claims.void_by_inclusion, session, assignment, place)

    @HAS_CLAIMS
    @rule(who=ENTRIES, data=st.data())
    def void_by_acknowledgement(self, who: str, data: st.DataObject) -> None:
        assignment, session = self._pick_claim(data)
        nonce = self.model.claims[assignment].nonce
        jobs = self.jobs.get(session, [])
        later = [job for job in jobs if job.request.acked_below > nonce]
        job = self.pick(data, later if later and not self.seldom(data) else self.all_jobs()[-6:])
        work = job.work(self.pick(data, job.stages))
        if self.seldom(data):
            work = work._replace(assigned_by=self.pick(data, [None, self.who("rival"), self.who("thief")]))
        call = self.chain.ledger.void_by_acknowledgement(
            assignment, signed_work(work, self.model.domain, self.play.bench.keys)
        )
        self.play.do(self.who(who), call, claims.void_by_acknowledgement, assignment, work)

    @HAS_CLAIMS
    @rule(who=ENTRIES, data=st.data())
    def pay_claim(self, who: str, data: st.DataObject) -> None:
        assignment, session = self._pick_claim(data)
        self.wait_for(data, self.model.claims[assignment].pays_at or 0)
        call = self.chain.ledger.pay_claim(session, assignment)
        self.play.do(self.who(who), call, claims.pay_claim, session, assignment)

    def _pick_claim(self, data: st.DataObject) -> tuple[bytes, bytes]:
        """A claim and its session, mostly of those under way; seldom another session, or no claim."""
        under_way = [key for key, claim in self.model.claims.items() if claim.pays_at is not None]
        known = under_way if under_way and not self.seldom(data) else list(self.model.claims)
        assignment = self.pick(data, known[-3:])
        session = self.model.claims[assignment].session
        return assignment, self.pick_session(data) if self.seldom(data) else session

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def look_for_a_receipt(self, data: st.DataObject) -> None:
        """What the ledger says about a receipt in a batch, now, is what the model says."""
        batch = self.pick(data, self.batches[-4:])
        receipts = [leaf for leaves in batch.receipts for leaf in leaves]
        if receipts:
            receipt, cost = self.pick(data, receipts)
            place = self.place_of(data, receipt, cost + self.seldom(data))
            assert place is not None
            assert self.chain.ledger.is_included(inclusion(place)) == self.model.is_included(place)
