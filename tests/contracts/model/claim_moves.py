"""What nodes do that were left out, and what others say against it: direct claims."""

from __future__ import annotations

from tests.contracts.model import claims
from tests.contracts.model.dice import Dice
from tests.contracts.model.jobs import Job, inclusion, signature, signed_work
from tests.contracts.model.play import CREDIT
from tests.contracts.model.player import Player


class ClaimMoves(Player):
    def open_claim(self, dice: Dice) -> None:
        if not any(map(self._claimable, self.all_jobs())) and not dice.seldom():
            self.open_session(dice)
            self.ask(dice)
        if not self.serve_more(dice):
            return
        job, stage = self.pick_stage(dice, self._claimable)
        p, deadline, session = self.model.parameters, stage.assignment.deadline, job.request.session
        last = deadline + p.claim_period_s
        if session in self.model.sessions:
            last = min(last, self.model.sessions[session].ends_at + p.session_thaw_s)
        self.wait_for(dice, dice.pick([deadline + p.claim_delay_s] * 8 + [last, last + 1]))
        receipt = stage.receipt
        if dice.seldom():
            receipt = receipt.model_copy(update={"cost": receipt.cost + dice.pick([1, CREDIT])})
        work = job.work(stage)
        if dice.seldom():
            work = work._replace(**{dice.pick(["ordered_by", "assigned_by"]): None})
        signer = self.model.nodes[receipt.node].signer or receipt.node
        sender = self.mostly(dice, dice.pick([signer, receipt.node]), "worker", "rival", "new signer")
        signed = signed_work(work, self.model.domain, self.play.bench.keys)
        self.play.do(sender, self.chain.ledger.open_claim(signed, receipt), claims.open_claim, work, receipt)

    def void_by_inclusion(self, dice: Dice) -> None:
        if not self._see_claims(dice):
            return
        if dice.pick([True, False]):
            self.settle(dice)
        assignment, session = self._pick_claim(dice)
        claim = self.model.claims[assignment]
        place = self.place_of(dice, claim.receipt, claim.amount)
        if place is not None:
            call = self.chain.ledger.void_by_inclusion(session, assignment, inclusion(place))
            self.play.do(self.anybody(dice), call, claims.void_by_inclusion, session, assignment, place)

    def void_by_receipt(self, dice: Dice) -> None:
        """The node signed something else than it claims."""
        if not self._see_claims(dice):
            return
        hashed, session = self._pick_claim(dice)
        stages = [stage for job in self.all_jobs() for stage in job.stages]
        stage = next(stage for stage in stages if self.hash_of(stage.assignment) == hashed)
        other = stage.receipt if dice.seldom() else stage.receipt.model_copy(update={"outputs": b"\2" * 32})
        signer = self.model.nodes[other.node].signer or other.node
        by = self.mostly(dice, signer, "worker", "rival", "new signer")
        signed = signature(other, self.model.domain, by, self.play.bench.keys)
        call = self.chain.ledger.void_by_receipt(session, stage.assignment, other, signed)
        self.play.do(self.anybody(dice), call, claims.void_by_receipt, session, stage.assignment, other, by)

    def void_by_acknowledgement(self, dice: Dice) -> None:
        if not self._see_claims(dice):
            return
        assignment, session = self._pick_claim(dice)
        nonce = self.model.claims[assignment].nonce
        jobs = self.jobs.get(session, [])
        later = [job for job in jobs if job.request.acked_below > nonce]
        job = dice.pick(later if later and not dice.seldom() else self.all_jobs()[-6:])
        work = job.work(dice.pick(job.stages))
        if dice.seldom():
            work = work._replace(assigned_by=dice.pick([None, self.who("rival"), self.who("thief")]))
        call = self.chain.ledger.void_by_acknowledgement(
            assignment, signed_work(work, self.model.domain, self.play.bench.keys)
        )
        self.play.do(self.anybody(dice), call, claims.void_by_acknowledgement, assignment, work)

    def pay_claim(self, dice: Dice) -> None:
        if not self._see_claims(dice):
            return
        assignment, session = self._pick_claim(dice)
        self.wait_for(dice, self.model.claims[assignment].pays_at or 0)
        call = self.chain.ledger.pay_claim(session, assignment)
        self.play.do(self.anybody(dice), call, claims.pay_claim, session, assignment)

    def _claimable(self, job: Job) -> bool:
        """Whether it can be claimed now or later."""
        p, session = self.model.parameters, self.model.sessions.get(job.request.session)
        deadline = job.stages[0].assignment.deadline
        first, last = deadline + p.claim_delay_s, deadline + p.claim_period_s
        return session is not None and self.now <= last and first <= session.ends_at + p.session_thaw_s

    def _see_claims(self, dice: Dice) -> bool:
        """Whether there are claims; mostly one is made when none is under way."""
        if all(claim.pays_at is None for claim in self.model.claims.values()) and not dice.seldom():
            self.open_claim(dice)
        return bool(self.model.claims)

    def _pick_claim(self, dice: Dice) -> tuple[bytes, bytes]:
        """A claim and its session, mostly of those under way; seldom another session, or no claim."""
        under_way = [key for key, claim in self.model.claims.items() if claim.pays_at is not None]
        known = under_way if under_way and not dice.seldom() else list(self.model.claims)
        assignment = dice.pick(known[-3:])
        session = self.model.claims[assignment].session
        return assignment, self.pick_session(dice) if dice.seldom() else session

    def look_for_a_receipt(self, dice: Dice) -> None:
        """What the ledger says about a receipt in a batch, now, is what the model says."""
        if not self.batches:
            return
        batch = dice.pick(self.batches[-4:])
        receipts = [leaf for leaves in batch.receipts for leaf in leaves]
        if receipts:
            receipt, cost = dice.pick(receipts)
            place = self.place_of(dice, receipt, cost + dice.seldom())
            assert place is not None
            assert self.chain.ledger.is_included(inclusion(place)) == self.model.is_included(place)
