"""Jobs as they are signed: a request, what the gateway made of it for each node, and what the nodes said they did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from eth_account.signers.local import LocalAccount

from declai.chain.contracts.ledger import Claim, Inclusion, SignedWork
from declai.chain.merkle import SumTree, payout_word
from declai.chain.messages import Assignment, Domain, InferenceReceipt, InferenceRequest, SignedMessage, sign
from tests.contracts.model.claims import Work
from tests.contracts.model.reference import Content, Place
from tests.contracts.model.settlement import Line

NO_SIGNATURE = bytes(64) + b"\x1b"
Keys = Mapping[str, LocalAccount]


@dataclass(frozen=True)
class Stage:
    """What the gateway assigned to a node, the node's receipt, and who signed the gateway's words."""

    assignment: Assignment
    assigned_by: str
    receipt: InferenceReceipt
    accepted_by: str


@dataclass(frozen=True)
class Job:
    """A request and who signed it. `fee` is the gateway's, on top of the stages' costs."""

    request: InferenceRequest
    ordered_by: str
    stages: tuple[Stage, ...]
    fee: int

    @property
    def cost(self) -> int:
        """What it costs the payer."""
        total = sum(stage.receipt.cost for stage in self.stages) + self.fee
        return min(total, self.request.max_cost)

    @property
    def line(self) -> Line:
        return Line(self.request, self.ordered_by, self.cost)

    def work(self, stage: Stage) -> Work:
        return Work(self.request, self.ordered_by, stage.assignment, stage.assigned_by)


def signature(message: SignedMessage, domain: Domain, by: str | None, keys: Keys) -> bytes:
    """By this account; by nobody, when there is none."""
    return NO_SIGNATURE if by is None else sign(message, domain, keys[by])


def signed_line(line: Line, domain: Domain, keys: Keys) -> Claim:
    return Claim(line.request, signature(line.request, domain, line.signed_by, keys), line.cost)


def signed_work(work: Work, domain: Domain, keys: Keys) -> SignedWork:
    return SignedWork(
        work.request,
        signature(work.request, domain, work.ordered_by, keys),
        work.assignment,
        signature(work.assignment, domain, work.assigned_by, keys),
    )


@dataclass
class Batch:
    """A batch as a gateway means to settle it; a liar changes it before."""

    gateway: str
    sender: str
    lines: list[Line]
    payouts: list[tuple[str, int]]
    receipts: list[tuple[tuple[bytes, int], ...]]
    slot: int
    faulted: tuple[str, ...] = ()

    @property
    def content(self) -> Content:
        return Content(tuple(self.payouts), tuple(self.receipts), b"link")

    def again(self, sender: str, slot: int) -> Batch:
        """The same, for another slot."""
        lines, payouts, receipts = list(self.lines), list(self.payouts), list(self.receipts)
        return replace(self, sender=sender, slot=slot, lines=lines, payouts=payouts, receipts=receipts)


def inclusion(place: Place) -> Inclusion:
    """The path that goes with a place; none leads there when the receipt is not among the batch's."""
    trees = [SumTree(receipts) for receipts in place.content.receipts]
    receipts = place.content.receipts[place.payout]
    leaf = (place.receipt, place.cost)
    index = receipts.index(leaf) if leaf in receipts else 0
    return Inclusion(
        gateway=place.gateway,
        slot=place.slot,
        payouts=tuple(payout_word(node, amount) for node, amount in place.content.payouts),
        subroots=tuple(tree.root for tree in trees),
        link=place.content.link,
        payout_index=place.payout,
        top=trees[place.payout].top,
        num_receipts=len(receipts),
        receipt=place.receipt,
        cost=place.cost,
        receipt_index=index,
        receipt_proof=tuple(trees[place.payout].proof(index)),
    )
