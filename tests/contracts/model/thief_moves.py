"""What only the treasury, the ledger or the court may do, tried by others; and time, which does nothing but pass."""

from __future__ import annotations

from tests.contracts.model import accounts
from tests.contracts.model.dice import Dice
from tests.contracts.model.play import CREDIT
from tests.contracts.model.player import Player
from tests.contracts.model.reference import Reference, Refused

HOUR_S = 3600


class ThiefMoves(Player):
    def mint(self, dice: Dice) -> None:
        minter, receiver = self.mostly(dice, self.who("treasury")), self.anybody(dice)
        amount = dice.pick([CREDIT, 0, 2**96])
        self.play.do(minter, self.chain.token.mint(receiver, amount), accounts.mint, receiver, amount)

    def play_the_judge(self, dice: Dice) -> None:
        thief, victim = self.anybody(dice), self.anybody(dice)
        deeds = {
            "slash": (victim, CREDIT, thief),
            "jail": (victim, 2**40),
            "recordLoss": (victim, CREDIT),
            "recordWork": (thief, 1, CREDIT, 0),
        }
        deed, arguments = dice.pick(list(deeds.items()))
        call = self.play.bench.call("NodeRegistry", deed, *arguments)
        self.play.do(thief, call, _refuse, "Ledger" if deed == "recordWork" else "Court")

    def wait(self, dice: Dice) -> None:
        duration_s = dice.pick([HOUR_S, 12 * HOUR_S, 24 * HOUR_S, 48 * HOUR_S, 100 * HOUR_S])
        self.wait_until(self.now + duration_s)
        if dice.seldom():
            self._wait_for_the_next_epoch(dice)

    def _wait_for_the_next_epoch(self, dice: Dice) -> None:
        length = self.model.parameters.epoch_length_s
        begun = (self.now - self.model.genesis) // length
        self.wait_for(dice, self.model.genesis + (begun + 1) * length)


def _refuse(model: Reference, sender: str, but: str) -> None:
    """Nobody plays the ledger or the court."""
    raise Refused([f"NodeRegistryNot{but}"])
