"""What operators do with their nodes: stake, unstake, change signers, leave and come back."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from chain.contracts.nodes import Role
from tests.contracts.model import stakes
from tests.contracts.model.accounts import NOBODY
from tests.contracts.model.player import Player

OPERATORS = st.sampled_from(["gateway", "worker", "rival", "worker", "thief"])
SIGNERS = ("new signer", "newer signer", "worker's signer", "rival's signer", "gateway's signer", "rival")


class NodeMoves(Player):
    @rule(who=OPERATORS, data=st.data())
    def add_stake(self, who: str, data: st.DataObject) -> None:
        amount = self.amount(data, self.model.wallets[self.who(who)])
        self.play.do(self.who(who), self.chain.nodes.add_stake(amount), stakes.add_stake, amount)

    @rule(who=OPERATORS, data=st.data())
    def begin_unstake(self, who: str, data: st.DataObject) -> None:
        amount = self.amount(data, self.model.nodes[self.who(who)].stake)
        self.play.do(self.who(who), self.chain.nodes.begin_unstake(amount), stakes.begin_unstake, amount)

    @rule(who=OPERATORS)
    def cancel_unstake(self, who: str) -> None:
        self.play.do(self.who(who), self.play.bench.call("NodeRegistry", "cancelUnstake"), stakes.cancel_unstake)

    @rule(who=OPERATORS, data=st.data())
    def withdraw_stake(self, who: str, data: st.DataObject) -> None:
        node = self.model.nodes[self.who(who)]
        if node.thawing:
            self.wait_for(data, node.thaw_ends_at)
        self.play.do(self.who(who), self.chain.nodes.withdraw(), stakes.withdraw)

    @rule(who=OPERATORS, data=st.data())
    def set_signer(self, who: str, data: st.DataObject) -> None:
        signer = NOBODY if self.seldom(data) else self.who(self.pick(data, SIGNERS))
        self.play.do(self.who(who), self.chain.nodes.set_signer(signer), stakes.set_signer, signer)

    @rule(who=OPERATORS, data=st.data())
    def leave_or_come(self, who: str, data: st.DataObject) -> None:
        """Deregisters, or registers again with whatever signer there is."""
        if self.model.nodes[self.who(who)].roles and not self.seldom(data):
            self.play.do(self.who(who), self.chain.nodes.deregister(), stakes.deregister)
        else:
            roles = self.pick(data, [Role.WORKER, Role.GATEWAY, Role.WORKER | Role.GATEWAY])
            stake = stakes.minimum(self.model.parameters, roles) - self.seldom(data)
            self.play.register(self.who(who), self.who(self.pick(data, [*SIGNERS, "thief"])), roles, stake)
