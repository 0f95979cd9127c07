"""What gateways do: settle what was served, or try to settle something better for them; fees and compensation."""

from __future__ import annotations

from collections import defaultdict

from eth_utils.crypto import keccak
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from chain.contracts.ledger import Fault, Payout
from tests.contracts.model import accounts, settlement
from tests.contracts.model.accounts import NOBODY
from tests.contracts.model.compare import header_of
from tests.contracts.model.jobs import Batch, Job, signed_line
from tests.contracts.model.payer_moves import ENTRIES
from tests.contracts.model.play import CREDIT
from tests.contracts.model.player import Player
from tests.contracts.model.settlement import Line

GATEWAYS = st.sampled_from(["gateway", "rival"])


class GatewayMoves(Player):
    @precondition(lambda self: any(self.jobs.values()))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """A gateway's honest batch, as far as what the payers signed allows one."""
        self._send(self._plan(data))

    @precondition(lambda self: any(self.jobs.values()))
    @rule(data=st.data(), lie=st.sampled_from(["cost", "line", "signer", "payout", "node", "party", "slot", "fault"]))
    def settle_dishonestly(self, data: st.DataObject, lie: str) -> None:
        batch = self._plan(data)
        self._falsify(data, batch, lie)
        self._send(batch)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def settle_again(self, data: st.DataObject) -> None:
        """The same claims a second time pay nothing."""
        old = self.pick(data, self.batches[-3:])
        self._send(old.again(old.gateway, self._new_slot(old.gateway)))

    @rule(gateway=GATEWAYS, who=ENTRIES)
    def collect_fees(self, gateway: str, who: str) -> None:
        address = self.who(gateway)
        self.play.do(self.who(who), self.chain.ledger.collect_fees(address), accounts.collect_fees, address)

    @rule(gateway=GATEWAYS, data=st.data())
    def set_settler(self, gateway: str, data: st.DataObject) -> None:
        settler = self.pick(data, [self.who(f"{gateway}'s signer"), NOBODY, self.who("friend")])
        self.play.do(self.who(gateway), self.chain.ledger.set_settler(settler), accounts.set_settler, settler)

    @rule(gateway=GATEWAYS, data=st.data())
    def compensate(self, gateway: str, data: st.DataObject) -> None:
        address = self.who(gateway)
        sender = self.mostly(data, self.settler_of(address), "gateway", "rival")
        payer = NOBODY if self.seldom(data) else self.who("payer")
        amount = self.amount(data, self.model.balances[address])
        given = [(payer, bytes(32), address, amount)]
        call = self.play.bench.call("InferenceLedger", "compensate", address, given)
        self.play.do(sender, call, accounts.compensate, address, payer, amount)

    def _plan(self, data: st.DataObject) -> Batch:
        """What late sessions of one gateway owe for all that their newest requests leave open, and its nodes' pay."""
        ours = [session for session, jobs in self.jobs.items() if jobs][-3:]
        gateway = self.gateway_of(self.pick(data, ours))
        ours = [session for session in ours if self.gateway_of(session) == gateway]
        chosen = ours if len(ours) > 1 and self.pick(data, [False, True]) else [self.pick(data, ours)]
        jobs = [job for session in chosen for job in self._run(data, session)]
        sender = self.mostly(data, self.settler_of(gateway), "gateway", "rival", "worker")
        batch = Batch(gateway, sender, [job.line for job in jobs], [], [], self._new_slot(gateway))
        self._pay(data, batch, [job for session in chosen for job in self.jobs[session]])
        return batch

    def _run(self, data: st.DataObject, session: bytes) -> list[Job]:
        """The newest request, or one a bit older, and all that it does not acknowledge."""
        jobs = self.jobs[session]
        newest = self.pick(data, [jobs[-1], jobs[-1], jobs[-1], jobs[len(jobs) // 2]])
        upto = jobs[: jobs.index(newest) + 1]
        return [job for job in upto if newest.request.acked_below <= job.request.nonce < newest.request.nonce] + [
            newest
        ]

    def _pay(self, data: st.DataObject, batch: Batch, jobs: list[Job]) -> None:
        """Pays receipts that no batch paid, as far as the debits go. What is above the fee goes to a friend's node."""
        left = min(self._debits(batch.lines), self.model.supply)
        receipts = defaultdict(list)
        for stage in (stage for job in jobs for stage in job.stages):
            receipt = self.hash_of(stage.receipt)
            if receipt not in self.paid and stage.receipt.cost <= left and not self.seldom(data):
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

    def _falsify(self, data: st.DataObject, batch: Batch, lie: str) -> None:
        index = self.pick(data, range(len(batch.lines)))
        line = batch.lines[index]
        if lie == "cost":
            cost = self.pick(data, [line.request.max_cost + 1, line.request.max_cost, 0])
            batch.lines[index] = line._replace(cost=cost)
        elif lie == "line":
            change = self.pick(data, [batch.lines.reverse, batch.lines.pop, lambda: batch.lines.append(line)])
            change()
        elif lie == "signer":
            batch.lines[index] = line._replace(signed_by=self.who("thief"))
        elif lie == "payout":
            # The tree keeps its sum: who is paid less or more than it says can't show his receipts.
            which = self.pick(data, range(len(batch.payouts) or 1))
            if batch.payouts:
                node, amount = batch.payouts[which]
                batch.payouts[which] = (node, max(amount + self.pick(data, [-1, 1, -CREDIT, 90 * CREDIT]), 0))
        elif lie == "node":
            batch.payouts = [(self.who("thief"), amount) for _, amount in batch.payouts]
        elif lie == "party":
            batch.gateway = self.who(self.pick(data, ["gateway", "rival", "thief"]))
        elif lie == "slot":
            slots = [slot for gateway, slot in self.model.anchors if gateway == batch.gateway]
            batch.slot = self.pick(data, slots or [0])
            if anchor := self.model.anchors.get((batch.gateway, batch.slot)):
                self.wait_for(data, anchor.settled_at + self.model.parameters.batch_retention_s)
        elif lie == "fault":
            batch.faulted = tuple(self.pick(data, [[n for n, _ in batch.payouts], [self.who("thief")]]))

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
