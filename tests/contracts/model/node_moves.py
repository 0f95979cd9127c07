"""What operators do with their nodes: stake, unstake, change signers, leave and come back."""

from __future__ import annotations

from declai.chain.contracts.nodes import Role
from tests.contracts.model import stakes
from tests.contracts.model.accounts import NOBODY
from tests.contracts.model.dice import Dice
from tests.contracts.model.player import Player

OPERATORS = ("gateway", "worker", "rival", "worker", "thief")
SIGNERS = ("new signer", "newer signer", "worker's signer", "rival's signer", "gateway's signer", "rival")


class NodeMoves(Player):
    def change_stake(self, dice: Dice) -> None:
        """More, less, or less after all."""
        operator, nodes = self.who(dice.pick(OPERATORS)), self.chain.nodes
        more = self.amount(dice, self.model.wallets[operator])
        less = self.amount(dice, self.model.nodes[operator].stake)
        deeds = [
            (nodes.add_stake(more), stakes.add_stake, more),
            (nodes.begin_unstake(less), stakes.begin_unstake, less),
            (self.play.bench.call("NodeRegistry", "cancelUnstake"), stakes.cancel_unstake),
        ]
        self.play.do(operator, *dice.pick(deeds[2:] if self.model.nodes[operator].thawing else deeds))

    def withdraw_stake(self, dice: Dice) -> None:
        operator = self.who(dice.pick(OPERATORS))
        node = self.model.nodes[operator]
        if node.roles and not node.thawing and not dice.seldom():
            some = max(node.stake // dice.pick([2, 9, 100]), 1)
            self.play.do(operator, self.chain.nodes.begin_unstake(some), stakes.begin_unstake, some)
        if node.thawing:
            self.wait_for(dice, node.thaw_ends_at)
        self.play.do(operator, self.chain.nodes.withdraw(), stakes.withdraw)

    def set_signer(self, dice: Dice) -> None:
        operator = self.who(dice.pick(OPERATORS))
        signer = NOBODY if dice.seldom() else self.who(dice.pick(SIGNERS))
        self.play.do(operator, self.chain.nodes.set_signer(signer), stakes.set_signer, signer)

    def leave_or_come(self, dice: Dice) -> None:
        """Deregisters, or registers again with whatever signer there is."""
        operator = self.who(dice.pick(OPERATORS))
        if self.model.nodes[operator].roles and not dice.seldom():
            self.play.do(operator, self.chain.nodes.deregister(), stakes.deregister)
        else:
            roles = dice.pick([Role.WORKER, Role.GATEWAY, Role.WORKER | Role.GATEWAY])
            stake = stakes.minimum(self.model.parameters, roles) - dice.seldom()
            self.play.register(operator, self.who(dice.pick([*SIGNERS, "thief"])), roles, stake)
