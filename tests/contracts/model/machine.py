"""Everybody who plays, in one machine: any of their moves may follow any other."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.contracts.model.claim_moves import ClaimMoves
from tests.contracts.model.court_moves import CourtMoves
from tests.contracts.model.dice import DICE, Dice
from tests.contracts.model.gateway_moves import GatewayMoves
from tests.contracts.model.node_moves import NodeMoves
from tests.contracts.model.payer_moves import PayerMoves
from tests.contracts.model.play import Play
from tests.contracts.model.thief_moves import ThiefMoves

# How often each move is made, in proportion.
WEIGHTS = {
    "settle": 16,
    "settle_dishonestly": 9,
    "settle_again": 2,
    "manage_money": 4,
    "open_claim": 14,
    "pay_claim": 9,
    "void_by_inclusion": 5,
    "void_by_acknowledgement": 7,
    "void_by_receipt": 3,
    "look_for_a_receipt": 2,
    "challenge_payout": 6,
    "answer_challenge": 5,
    "decide_challenge": 4,
    "prove_equivocation": 2,
    "withdraw_award": 3,
    "open_session": 6,
    "top_up": 4,
    "ask": 4,
    "close_session": 3,
    "finalize_close": 3,
    "close_together": 3,
    "move_credits": 5,
    "change_stake": 5,
    "withdraw_stake": 3,
    "set_signer": 2,
    "leave_or_come": 2,
    "mint": 1,
    "play_the_judge": 1,
    "wait": 3,
}
MOVES = [move for move, weight in WEIGHTS.items() for _ in range(weight)]


class Market(RuleBasedStateMachine, PayerMoves, GatewayMoves, ClaimMoves, CourtMoves, NodeMoves, ThiefMoves):
    """Payers, a gateway, a worker, a rival who is both, and a thief; each move is made on model and chain.

    One rule and a table, because of many rules Hypothesis would leave most out of a game, and most moves need others.
    """

    def __init__(self, play: Play) -> None:
        RuleBasedStateMachine.__init__(self)
        PayerMoves.__init__(self, play)

    @initialize(dice=DICE)
    def begin(self, dice: Dice) -> None:
        """A game without a session would be short."""
        self.open_first_session()
        self.ask(dice)

    @rule(move=st.sampled_from(MOVES), dice=DICE)
    def make(self, move: str, dice: Dice) -> None:
        if not self.model.sessions and dice.pick([True, False]):
            self.open_session(dice)
        getattr(self, move)(dice)
