"""What only the treasury, the ledger or the court may do, tried by others; and time, which does nothing but pass."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.contracts.model import accounts
from tests.contracts.model.payer_moves import ENTRIES
from tests.contracts.model.play import CREDIT
from tests.contracts.model.player import Player
from tests.contracts.model.reference import Reference, Refused

HOUR_S = 3600


class ThiefMoves(Player):
    @rule(who=ENTRIES, to=ENTRIES, data=st.data())
    def mint(self, who: str, to: str, data: st.DataObject) -> None:
        minter, receiver = self.mostly(data, self.who("treasury"), who), self.who(to)
        amount = self.pick(data, [CREDIT, 0, 2**96])
        self.play.do(minter, self.chain.token.mint(receiver, amount), accounts.mint, receiver, amount)

    @rule(who=ENTRIES, victim=ENTRIES, deed=st.sampled_from(["slash", "jail", "recordLoss", "recordWork"]))
    def play_the_judge(self, who: str, victim: str, deed: str) -> None:
        arguments = {
            "slash": (self.who(victim), CREDIT, self.who(who)),
            "jail": (self.who(victim), 2**40),
            "recordLoss": (self.who(victim), CREDIT),
            "recordWork": (self.who(who), 1, CREDIT, 0),
        }[deed]
        call = self.play.bench.call("NodeRegistry", deed, *arguments)
        self.play.do(self.who(who), call, _refuse, "Ledger" if deed == "recordWork" else "Court")

    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        duration_s = self.pick(data, [HOUR_S, 12 * HOUR_S, 24 * HOUR_S, 48 * HOUR_S, 100 * HOUR_S])
        self.wait_until(self.now + duration_s)

    @rule(data=st.data())
    def wait_for_the_next_epoch(self, data: st.DataObject) -> None:
        length = self.model.parameters.epoch_length_s
        begun = (self.now - self.model.genesis) // length
        self.wait_for(data, self.model.genesis + (begun + 1) * length)


def _refuse(model: Reference, sender: str, but: str) -> None:
    """Nobody plays the ledger or the court."""
    raise Refused([f"NodeRegistryNot{but}"])
