"""What is brought before the court by signatures alone: unpaid receipts, and two receipts for one assignment."""

from __future__ import annotations

from declai.chain.messages import Acceptance
from tests.contracts.model import court
from tests.contracts.model.dice import Dice
from tests.contracts.model.jobs import inclusion, signature
from tests.contracts.model.player import Player


class CourtMoves(Player):
    def challenge_payout(self, dice: Dice) -> None:
        if not self.serve_more(dice):
            return
        job, stage = self.pick_stage(dice)
        gateway = self.mostly(dice, self.gateway_of(job.request.session), "gateway", "rival")
        receipt, by = stage.receipt, None if dice.seldom() else stage.accepted_by
        if dice.seldom():
            receipt = receipt.model_copy(update={"output_tokens": receipt.output_tokens + 1})
        if dice.seldom():
            self.wait_for(dice, receipt.finished_at + self.model.parameters.challenge_period_s)
        acceptance = Acceptance(receipt=self.hash_of(receipt))
        signed = signature(acceptance, self.model.domain, by, self.play.bench.keys)
        call = self.chain.court.challenge_payout(gateway, receipt, signed)
        sender = self.anybody(dice) if dice.seldom() else receipt.node
        self.play.do(sender, call, court.challenge_payout, gateway, receipt, by)

    def answer_challenge(self, dice: Dice) -> None:
        if not self._see_challenges(dice):
            return
        gateway, receipt = self._pick_challenge(dice)
        place = self.place_of(dice, receipt, self.model.challenges[gateway, receipt].amount)
        if place is not None:
            call = self.chain.court.answer_challenge(receipt, inclusion(place))
            self.play.do(self.anybody(dice), call, court.answer_challenge, receipt, place)

    def decide_challenge(self, dice: Dice) -> None:
        if not self._see_challenges(dice):
            return
        gateway, receipt = self._pick_challenge(dice)
        self.wait_for(dice, self.model.challenges[gateway, receipt].decided_at or 0)
        call = self.chain.court.decide_challenge(gateway, receipt)
        self.play.do(self.anybody(dice), call, court.decide_challenge, gateway, receipt)

    def prove_equivocation(self, dice: Dice) -> None:
        if not self.serve_more(dice):
            return
        _, stage = self.pick_stage(dice)
        first, second = stage.receipt, stage.receipt.model_copy(update={"outputs": b"\1" * 32})
        if dice.seldom():
            second = dice.pick([first, second.model_copy(update={"assignment": bytes(32)})])
        signer = self.model.nodes[first.node].signer or first.node
        by = (self.mostly(dice, signer, "worker", "rival", "worker's signer"), self.mostly(dice, signer, "new signer"))
        signed = [
            signature(receipt, self.model.domain, account, self.play.bench.keys)
            for receipt, account in zip((first, second), by, strict=True)
        ]
        call = self.chain.court.prove_equivocation(first, signed[0], second, signed[1])
        self.play.do(self.anybody(dice), call, court.prove_equivocation, first, by[0], second, by[1])

    def withdraw_award(self, dice: Dice) -> None:
        owed = [account for account, amount in self.model.awards.items() if amount and not dice.seldom()]
        sender = dice.pick(owed) if owed else self.anybody(dice)
        self.play.do(sender, self.chain.court.withdraw(), court.withdraw)

    def _see_challenges(self, dice: Dice) -> bool:
        """Whether there are challenges; mostly one is made when none is under way."""
        if all(challenge.decided_at is None for challenge in self.model.challenges.values()) and not dice.seldom():
            self.challenge_payout(dice)
        return bool(self.model.challenges)

    def _pick_challenge(self, dice: Dice) -> tuple[str, bytes]:
        under_way = [key for key, challenge in self.model.challenges.items() if challenge.decided_at is not None]
        known = under_way if under_way and not dice.seldom() else list(self.model.challenges)
        return dice.pick(known[-3:])
