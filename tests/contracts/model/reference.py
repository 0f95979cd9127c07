"""What should stand on the chain: a model in plain Python, written from the protocol's rules and not from the code.

Each rule of the protocol is a function in a module beside this one (`accounts`, `sessions`, `settlement`, `claims`,
`stakes`, `court`) that takes the model, who acts, and what; it changes the model, or raises `Refused` and changes
nothing. Accounts are addresses, amounts base units, times Unix seconds. Where several reasons forbid something, all of
them are named: the contracts may say any one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from declai.chain.contracts.ledger import SessionTerms
from declai.chain.messages import Domain
from declai.chain.parameters import Parameters

MICRO_CREDIT = 10**12


class Refused(Exception):
    """The protocol forbids a deed; `errors` are the custom errors that say why."""

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = frozenset(errors)
        super().__init__(", ".join(sorted(self.errors)))


def refuse_if(**reasons: bool) -> None:
    """Raises Refused with the names of all reasons that hold."""
    errors = [name for name, holds in reasons.items() if holds]
    if errors:
        raise Refused(errors)


@contextmanager
def refused_with(reasons: Mapping[str, bool]) -> Iterator[None]:
    """What is refused inside may as well be refused for these reasons."""
    try:
        yield
    except Refused as refused:
        raise Refused(refused.errors | {name for name, holds in reasons.items() if holds}) from None


@dataclass
class Session:
    """An open session. `settled` is what it paid over all paths, `paid_directly` the part that direct claims took."""

    terms: SessionTerms
    budget: int
    ends_at: int
    settled: int = 0
    paid_directly: int = 0


@dataclass
class Claim:
    """A direct claim; `pays_at` is None once it has ended, and `amount` is then what it was paid."""

    node: str
    amount: int
    receipt: bytes
    session: bytes
    nonce: int
    pays_at: int | None
    cap: int
    acknowledged: bool = False


class Content(NamedTuple):
    """What a batch commits to: payouts (node, amount), of each its receipts (digest, cost), and a link."""

    payouts: tuple[tuple[str, int], ...]
    receipts: tuple[tuple[tuple[bytes, int], ...], ...]
    link: bytes


class Place(NamedTuple):
    """Where somebody says that a receipt of a cost stands: in whose batch, in which slot, for which payout."""

    gateway: str
    slot: int
    content: Content
    payout: int
    receipt: bytes
    cost: int

    @property
    def node(self) -> str:
        return self.content.payouts[self.payout][0]


@dataclass(frozen=True)
class Anchor:
    content: Content
    settled_at: int


@dataclass
class Node:
    """Roles are zero while the operator is not registered."""

    roles: int = 0
    signer: str | None = None
    stake: int = 0
    thawing: int = 0
    thaw_ends_at: int = 0
    jailed_until: int = 0


@dataclass(frozen=True)
class SignerRecord:
    """Whose signer an address is, or was until `retired_at`."""

    operator: str
    retired_at: int | None = None


@dataclass
class Challenge:
    """A payout challenge; `decided_at` is None once it has ended."""

    challenger: str
    decided_at: int | None
    amount: int
    node: str


@dataclass
class Reference:
    """All of the state. `wallets` are balances of the credit itself, those of the three contracts among them."""

    genesis: int
    parameters: Parameters
    domain: Domain
    ledger: str
    registry: str
    court: str
    now: int = 0
    supply: int = 0
    wallets: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    balances: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    fees: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    settlers: dict[str, str] = field(default_factory=dict)
    sessions: dict[bytes, Session] = field(default_factory=dict)
    opened: list[SessionTerms] = field(default_factory=list)
    anchors: dict[tuple[str, int], Anchor] = field(default_factory=dict)
    claims: dict[bytes, Claim] = field(default_factory=dict)
    claimed: dict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    earnings: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    nodes: dict[str, Node] = field(default_factory=lambda: defaultdict(Node))
    signers: dict[str, SignerRecord] = field(default_factory=dict)
    awards: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    challenges: dict[tuple[str, bytes], Challenge] = field(default_factory=dict)
    equivocated: set[tuple[str, bytes]] = field(default_factory=set)

    def move(self, source: str, to: str, amount: int) -> None:
        """Moves credits between wallets."""
        refuse_if(ERC20InsufficientBalance=amount > self.wallets[source])
        self.wallets[source] -= amount
        self.wallets[to] += amount

    def earn(self, node: str, amount: int) -> None:
        """Pays a node for work, which locks stake: counted up to whole micro-credits."""
        self.balances[node] += amount
        self.earnings[node].append((self.epoch, -(-amount // MICRO_CREDIT) * MICRO_CREDIT))

    @property
    def epoch(self) -> int:
        return (self.now - self.genesis) // self.parameters.epoch_length_s

    def locked_earnings(self, node: str) -> int:
        """What a node earned in this epoch and the one before."""
        return sum(amount for epoch, amount in self.earnings[node] if epoch >= self.epoch - 1)

    def open_claims(self, session: bytes) -> list[Claim]:
        return [claim for claim in self.claims.values() if claim.session == session and claim.pays_at is not None]

    def speaks_for(self, account: str | None, operator: str, period_s: int) -> bool:
        """Whether a signature by `account` is the operator's word: its own, its signer's, or that of one who retired at
        most `period_s` ago. None stands for a signature by nobody."""
        record = self.signers.get(account or "")
        if account == operator:
            return True
        if record is None or record.operator != operator:
            return False
        return record.retired_at is None or self.now <= record.retired_at + period_s

    def acts_for(self, account: str, operator: str) -> bool:
        """Whether an account may act now for an operator: itself, even when it has left, or its present signer."""
        is_signer = account == self.nodes[operator].signer and self.nodes[account].roles == 0
        return account == operator or is_signer

    def settled_before(self, place: Place, moment: int) -> bool:
        """Whether the batch was there before it was asked for; who pays only when made to wins nothing."""
        return self.anchors[place.gateway, place.slot].settled_at < moment

    def is_included(self, place: Place) -> bool:
        """Whether a batch that still stands there paid this receipt to this node."""
        anchor = self.anchors.get((place.gateway, place.slot))
        if anchor is None or anchor.content != place.content or place.payout >= len(place.content.payouts):
            return False
        receipts = place.content.receipts[place.payout]
        adds_up = sum(cost for _, cost in receipts) == place.content.payouts[place.payout][1]
        return adds_up and (place.receipt, place.cost) in receipts

    def check_conservation(self) -> None:
        """The invariants that docs/contracts.md states."""
        locked = sum(session.budget - session.settled for session in self.sessions.values())
        bonds = sum(self.parameters.claim_bond for claim in self.claims.values() if claim.pays_at is not None)
        assert self.wallets[self.ledger] == sum(self.balances.values()) + sum(self.fees.values()) + locked + bonds
        assert self.wallets[self.registry] == sum(node.stake + node.thawing for node in self.nodes.values())
        asked = sum(self.parameters.challenge_bond for c in self.challenges.values() if c.decided_at is not None)
        assert self.wallets[self.court] == sum(self.awards.values()) + asked
        assert self.supply == sum(self.wallets.values())
        assert all(0 <= session.settled <= session.budget for session in self.sessions.values())
        for amounts in (self.wallets, self.balances, self.fees, self.awards):
            assert all(amount >= 0 for amount in amounts.values())
