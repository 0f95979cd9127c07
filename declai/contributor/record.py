"""A node's record on the chain: what it failed, what that cost it, and what it earned."""

from __future__ import annotations

from dataclasses import dataclass

from declai.chain.client import Chain
from declai.chain.contracts.binding import Binding, Event
from declai.chain.state import ChainState
from declai.contributor.operator import local_time


@dataclass(frozen=True)
class Blemish:
    """One thing that the chain holds against a node. `amount` in base units, `at` in Unix seconds."""

    at: int
    block: int
    what: str
    amount: int
    detail: str


@dataclass(frozen=True)
class ServiceRecord:
    """Reputation in [0, 10**18], half of that for a newcomer; `jailed_until` in Unix seconds, 0 when it never was."""

    reputation: int
    jailed_until: int
    is_jailed: bool
    slashed: int
    blemishes: list[Blemish]


@dataclass(frozen=True)
class Earned:
    """Base units: settled in batches, paid by direct claims, and what lies where now."""

    num_batches: int
    settled: int
    claimed: int
    ledger: int
    court: int
    locked_stake: int


def record_of(chain: Chain, operator: str) -> ServiceRecord:
    """Read a node's record from the contracts' events and views."""
    now, jailed_until = chain.timestamp(), chain.nodes.jailed_until(operator)
    events: list[tuple[Event, str, int, str]] = []

    def add(binding: Binding, name: str, who: str, what: str, detail: str, amount: str = "") -> None:
        for event in binding.log(name, **{who: operator}):
            values = event.values
            known = local_time(values[detail]) if detail == "until" else values[detail]
            events.append((event, what, int(values.get(amount, 0)), f"{detail} {known}"))

    add(chain.ledger, "NodeFaulted", "node", "failed work", "gateway", "amount")
    add(chain.nodes, "StakeSlashed", "operator", "stake slashed", "to", "amount")
    add(chain.nodes, "NodeJailed", "operator", "jailed", "until")
    add(chain.court, "EquivocationProved", "operator", "signed two receipts for one assignment", "reporter", "taken")
    add(chain.court, "PayoutChallenged", "gateway", "payout challenged", "node", "amount")
    add(chain.court, "ChallengeUpheld", "gateway", "did not pay an accepted receipt", "node", "taken")
    events.sort(key=lambda found: (found[0].block, found[0].log_index))
    return ServiceRecord(
        reputation=chain.nodes.reputation(operator),
        jailed_until=jailed_until,
        is_jailed=now < jailed_until,
        slashed=sum(amount for event, _, amount, _ in events if event.name == "StakeSlashed"),
        blemishes=[
            Blemish(chain.timestamp(event.block), event.block, what, amount, detail)
            for event, what, amount, detail in events
        ],
    )


def earned_by(chain: Chain, state: ChainState, operator: str) -> Earned:
    """What a node earned since the deployment, and what of it lies in the contracts."""
    batches = state.batches.values()
    settled = [sum(payout.amount for payout in batch.payouts if payout.node == operator) for batch in batches]
    claims = chain.ledger.log("ClaimPaid", node=operator)
    return Earned(
        num_batches=sum(amount > 0 for amount in settled),
        settled=sum(settled),
        claimed=sum(event.values["amount"] for event in claims),
        ledger=chain.ledger.balance_of(operator),
        court=chain.court.balance_of(operator),
        locked_stake=chain.nodes.locked_stake(operator),
    )
