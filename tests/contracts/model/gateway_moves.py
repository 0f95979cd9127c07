"""What gateways do: settle what was served, or try to settle something better for them; fees and compensation."""

from __future__ import annotations

from collections import defaultdict

from eth_utils.crypto import keccak

from declai.chain.contracts.ledger import Fault, Payout
from tests.contracts.model import accounts, settlement
from tests.contracts.model.accounts import NOBODY
from tests.contracts.model.compare import header_of
from tests.contracts.model.dice import Dice
from tests.contracts.model.jobs import Batch, Job, signed_line
from tests.contracts.model.play import CREDIT
from tests.contracts.model.player import Player
from tests.contracts.model.settlement import Line

GATEWAYS = ("gateway", "rival")
LIES = ("cost", "line", "signer", "payout", "node", "party", "slot", "fault")


class GatewayMoves(Player):
    def settle(self, dice: Dice) -> None:
        """A gateway's honest batch, as far as what the payers signed allows one."""
        if self.serve_more(dice):
            self._send(self._plan(dice))

    def settle_dishonestly(self, dice: Dice) -> None:
        if self.serve_more(dice):
            batch = self._plan(dice)
            self._falsify(dice, batch, dice.pick(LIES))
            self._send(batch)

    def settle_again(self, dice: Dice) -> None:
        """The same claims a second time pay nothing."""
        if self.batches:
            old = dice.pick(self.batches[-3:])
            self._send(old.again(old.gateway, self._new_slot(old.gateway)))

    def manage_money(self, dice: Dice) -> None:
        """Names who settles, collects fees, gives something back."""
        gateway = dice.pick(GATEWAYS)
        ledger, address = self.chain.ledger, self.who(gateway)
        payer = NOBODY if dice.seldom() else self.who("payer")
        amount = self.amount(dice, self.model.balances[address])
        given = self.play.bench.call("InferenceLedger", "compensate", address, ((payer, bytes(32), address, amount),))
        settler = dice.pick([self.who(f"{gateway}'s signer"), NOBODY, self.who("friend")])
        by = self.mostly(dice, self.settler_of(address), "gateway", "rival")
        deeds = [
            (by, given, accounts.compensate, address, payer, amount),
            (self.anybody(dice), ledger.collect_fees(address), accounts.collect_fees, address),
            (address, ledger.set_settler(settler), accounts.set_settler, settler),
        ]
        self.play.do(*dice.pick(deeds))

    def _plan(self, dice: Dice) -> Batch:
        """What late sessions of one gateway owe for all that their newest requests leave open, and its nodes' pay."""
        known = [session for session, jobs in self.jobs.items() if jobs]
        ours = [session for session in known if session in self.model.sessions or dice.seldom()][-3:] or known[-1:]
        gateway = self.gateway_of(dice.pick(ours))
        ours = [session for session in ours if self.gateway_of(session) == gateway]
        chosen = ours if len(ours) > 1 and dice.pick([False, True]) else [dice.pick(ours)]
        jobs = [job for session in chosen for job in self._run(dice, session)]
        sender = self.mostly(dice, self.settler_of(gateway), "gateway", "rival", "worker")
        batch = Batch(gateway, sender, [job.line for job in jobs], [], [], self._new_slot(gateway))
        self._pay(dice, batch, [job for session in chosen for job in self.jobs[session]])
        return batch

    def _run(self, dice: Dice, session: bytes) -> list[Job]:
        """The newest request that the session can pay, or one a bit older, and all that it does not acknowledge.

        Requests that are not by the session's key were served by mistake, if at all.
        """
        jobs, state = self.jobs[session], self.model.sessions.get(session)
        signed = [job for job in jobs if state and job.ordered_by == state.terms.key and not dice.seldom()] or jobs
        runs = [self._unacknowledged(signed, index) for index in range(len(signed))]
        left = state.budget - state.settled if state else 0
        good = [run for run in runs if 0 <= self._debits([job.line for job in run]) <= left]
        return dice.pick((good or runs)[-1:] * 3 + runs[-3:])

    @staticmethod
    def _unacknowledged(jobs: list[Job], index: int) -> list[Job]:
        newest = jobs[index].request
        earlier = [job for job in jobs[:index] if newest.acked_below <= job.request.nonce < newest.nonce]
        return [*earlier, jobs[index]]

    def _pay(self, dice: Dice, batch: Batch, jobs: list[Job]) -> None:
        """Pays receipts that no batch paid, as far as the debits go. What is above the fee goes to a friend's node."""
        left = min(self._debits(batch.lines), self.model.supply)
        receipts = defaultdict(list)
        for stage in (stage for job in jobs for stage in job.stages):
            receipt = self.hash_of(stage.receipt)
            if receipt not in self.paid and stage.receipt.cost <= left and not dice.seldom():
                receipts[stage.receipt.node].append((receipt, stage.receipt.cost))
                left -= stage.receipt.cost
        paid = sum(cost for leaves in receipts.values() for _, cost in leaves)
        fee_bps = self.model.parameters.max_fee_bps
        above = -(-(left * 10_000 - paid * fee_bps) // (10_000 + fee_bps))
        if above > 0:
            receipts[self.who("rival")].append((keccak(text=f"a favour {len(self.batches)}"), above))
        for node, leaves in receipts.items():
            batch.payouts.append((node, sum(cost for _, cost in leaves)))
            batch.receipts.append(tuple(leaves))

    def _debits(self, lines: list[Line]) -> int:
        """What a gateway reckons that the lines bring."""
        newest = {line.request.session: line.request for line in lines}
        settled = sum(s.settled for session, s in self.model.sessions.items() if session in newest)
        return sum(request.spent for request in newest.values()) + sum(line.cost for line in lines) - settled

    def _falsify(self, dice: Dice, batch: Batch, lie: str) -> None:
        index = dice.pick(range(len(batch.lines)))
        line = batch.lines[index]
        if lie == "cost":
            cost = dice.pick([line.request.max_cost + 1, line.request.max_cost, 0])
            batch.lines[index] = line._replace(cost=cost)
        elif lie == "line":
            change = dice.pick([batch.lines.reverse, batch.lines.pop, lambda: batch.lines.append(line)])
            change()
        elif lie == "signer":
            batch.lines[index] = line._replace(signed_by=self.who("thief"))
        elif lie == "payout":
            # The tree keeps its sum: who is paid less or more than it says can't show his receipts.
            which = dice.pick(range(len(batch.payouts) or 1))
            if batch.payouts:
                node, amount = batch.payouts[which]
                batch.payouts[which] = (node, max(amount + dice.pick([-1, 1, -CREDIT, 90 * CREDIT]), 0))
        elif lie == "node":
            batch.payouts = [(self.who("thief"), amount) for _, amount in batch.payouts]
        elif lie == "party":
            batch.gateway = self.who(dice.pick(["gateway", "rival", "thief"]))
        elif lie == "slot":
            slots = [slot for gateway, slot in self.model.anchors if gateway == batch.gateway]
            batch.slot = dice.pick(slots or [0])
            if anchor := self.model.anchors.get((batch.gateway, batch.slot)):
                self.wait_for(dice, anchor.settled_at + self.model.parameters.batch_retention_s)
        elif lie == "fault":
            batch.faulted = tuple(dice.pick([[n for n, _ in batch.payouts], [self.who("thief")]]))

    def _send(self, batch: Batch) -> None:
        domain, keys = self.model.domain, self.play.bench.keys
        call = self.chain.ledger.settle(
            batch.gateway,
            [signed_line(line, domain, keys) for line in batch.lines],
            [Payout(*payout) for payout in batch.payouts],
            header_of(batch.content),
            batch.slot,
            [Fault(node, CREDIT) for node in batch.faulted],
        )
        rest = (batch.gateway, batch.lines, batch.content, batch.faulted, batch.slot)
        if self.play.do(batch.sender, call, settlement.settle, *rest):
            self.batches.append(batch)
            self.paid.update(receipt for leaves in batch.receipts for receipt, _ in leaves)

    def settler_of(self, gateway: str) -> str:
        """Who settles for a gateway: itself, when it named nobody."""
        settler = self.model.settlers.get(gateway, NOBODY)
        return gateway if settler == NOBODY else settler

    def _new_slot(self, gateway: str) -> int:
        return sum(1 for anchored, _ in self.model.anchors if anchored == gateway)
