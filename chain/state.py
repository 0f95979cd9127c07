"""What the contracts' events add up to: nodes, offers, models, sessions, balances, batches. A pure fold."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from eth_utils.address import to_checksum_address

from declai.chain.contracts.binding import Event
from declai.chain.contracts.ledger import Payout, SessionState, session_number
from declai.chain.contracts.models import ModelVersion
from declai.chain.contracts.nodes import Offer, RegisteredNode


@dataclass(frozen=True)
class Debit:
    session: bytes
    amount: int


@dataclass(frozen=True)
class OpenClaim:
    """A direct claim under way; the bond in base units."""

    node: str
    session: bytes
    bond: int


@dataclass(frozen=True)
class SettledBatch:
    """A settled batch as its event tells it. Amounts in base units; `header` is a sha2-256 digest (chain.merkle)."""

    root: bytes
    gateway: str
    debits: tuple[Debit, ...]
    payouts: tuple[Payout, ...]
    header: bytes
    block: int

    @property
    def fee(self) -> int:
        """What the payouts left of the debits."""
        return sum(debit.amount for debit in self.debits) - sum(payout.amount for payout in self.payouts)


@dataclass(frozen=True)
class ModelEntry:
    """A model's name, publisher, versions and rollout (version -> basis points)."""

    name: str
    publisher: str
    versions: tuple[ModelVersion, ...]
    rollout: tuple[tuple[int, int], ...] = ()


@dataclass
class ChainState:
    """The fold. Keys: operators by checksummed address, models and sessions by their 32 bytes, offers by both and the
    numeric profile, batches by gateway and root. `fees` are what gateways have not collected."""

    block: int
    nodes: dict[str, RegisteredNode] = field(default_factory=dict)
    offers: dict[tuple[str, bytes, int], Offer] = field(default_factory=dict)
    models: dict[bytes, ModelEntry] = field(default_factory=dict)
    sessions: dict[bytes, SessionState] = field(default_factory=dict)
    session_numbers: dict[int, bytes] = field(default_factory=dict)
    fees: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    balances: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    claims: dict[bytes, OpenClaim] = field(default_factory=dict)
    batches: dict[tuple[str, bytes], SettledBatch] = field(default_factory=dict)

    def copy(self) -> ChainState:
        """A state that can change without this one changing; the rows are immutable and shared."""
        tables = ("nodes", "offers", "models", "sessions", "session_numbers", "balances", "fees", "claims", "batches")
        return replace(self, **{name: copy.copy(getattr(self, name)) for name in tables})

    def apply(self, event: Event) -> None:
        """Take in one event, in the chain's order. Events that change nothing here are passed over."""
        handler = HANDLERS.get((event.contract, event.name))
        if handler is not None:
            handler(self, event.values, event.block)


def _node_registered(state: ChainState, v: dict[str, Any], block: int) -> None:
    params, old = v["params"], state.nodes.get(v["operator"])
    state.nodes[v["operator"]] = RegisteredNode(
        signer=params["signer"],
        roles=params["roles"],
        term=v["term"],
        thaw_ends_at=old.thaw_ends_at if old else 0,
        stake=old.stake if old else 0,
        thawing=old.thawing if old else 0,
        link_key=params["linkKey"],
        endpoint=params["endpoint"],
        url=params["url"],
        region=params["region"],
        profile=params["profile"],
    )


ZERO = "0x" + "00" * 20


def _change_node(**names: str) -> Callable[[ChainState, dict[str, Any], int], None]:
    """A handler that sets attributes of a node from the event's values of the given names."""

    def handler(state: ChainState, v: dict[str, Any], block: int) -> None:
        changes = {attribute: v[name] for attribute, name in names.items()}
        state.nodes[v["operator"]] = replace(state.nodes[v["operator"]], **changes)

    return handler


def _node_deregistered(state: ChainState, v: dict[str, Any], block: int) -> None:
    node = state.nodes[v["operator"]]
    left = replace(node, signer=ZERO, roles=0, link_key=bytes(32), endpoint="", url="", region="", profile="")
    state.nodes[v["operator"]] = left
    for key in [key for key in state.offers if key[0] == v["operator"]]:
        del state.offers[key]


def _unstake_cancelled(state: ChainState, v: dict[str, Any], block: int) -> None:
    node = state.nodes[v["operator"]]
    state.nodes[v["operator"]] = replace(node, stake=v["stake"], thawing=0)


def _stake_withdrawn(state: ChainState, v: dict[str, Any], block: int) -> None:
    node = state.nodes[v["operator"]]
    state.nodes[v["operator"]] = replace(node, thawing=node.thawing - v["amount"])


def _stake_slashed(state: ChainState, v: dict[str, Any], block: int) -> None:
    """Whoever can sign can be convicted or owe for an acceptance; who never registered has nothing to lose."""
    if node := state.nodes.get(v["operator"]):
        state.nodes[v["operator"]] = replace(node, stake=v["stake"], thawing=v["thawing"])


def _offer_set(state: ChainState, v: dict[str, Any], block: int) -> None:
    state.offers[v["operator"], v["model"], v["numericProfile"]] = Offer(
        first_layer=v["firstLayer"],
        end_layer=v["endLayer"],
        numeric_profile=v["numericProfile"],
        term=state.nodes[v["operator"]].term,
        prompt_price=v["promptPrice"],
        output_price=v["outputPrice"],
    )


def _offer_removed(state: ChainState, v: dict[str, Any], block: int) -> None:
    state.offers.pop((v["operator"], v["model"], v["numericProfile"]), None)


def _model_published(state: ChainState, v: dict[str, Any], block: int) -> None:
    old = state.models.get(v["model"])
    version = ModelVersion(v["numLayers"], 0, False, v["manifestCid"])
    versions = (*(old.versions if old else ()), version)
    state.models[v["model"]] = ModelEntry(v["name"], v["publisher"], versions, old.rollout if old else ())


def _rollout_set(state: ChainState, v: dict[str, Any], block: int) -> None:
    shares = tuple((share["version"], share["weightBps"]) for share in v["shares"])
    state.models[v["model"]] = replace(state.models[v["model"]], rollout=shares)


def _version_deprecated(state: ChainState, v: dict[str, Any], block: int) -> None:
    versions = list(state.models[v["model"]].versions)
    versions[v["version"]] = replace(versions[v["version"]], deprecated=True)
    state.models[v["model"]] = replace(state.models[v["model"]], versions=tuple(versions))


def _deposited(state: ChainState, v: dict[str, Any], block: int) -> None:
    state.balances[v["account"]] += v["amount"]


def _withdrawn(state: ChainState, v: dict[str, Any], block: int) -> None:
    state.balances[v["account"]] -= v["amount"]


def _transferred(state: ChainState, v: dict[str, Any], block: int) -> None:
    state.balances[v["from"]] -= v["amount"]
    state.balances[v["to"]] += v["amount"]


def _compensated(state: ChainState, v: dict[str, Any], block: int) -> None:
    state.balances[v["gateway"]] -= v["amount"]
    state.balances[v["payer"]] += v["amount"]


def _fees_collected(state: ChainState, v: dict[str, Any], block: int) -> None:
    state.fees[v["gateway"]] -= v["amount"]
    state.balances[v["gateway"]] += v["amount"]


def _session_opened(state: ChainState, v: dict[str, Any], block: int) -> None:
    session = SessionState(v["key"], 0, v["gateway"], v["budget"], v["payer"], v["endsAt"])
    state.sessions[v["session"]] = session
    state.session_numbers[v["number"]] = v["session"]
    state.balances[v["payer"]] -= v["budget"]


def _session_topped_up(state: ChainState, v: dict[str, Any], block: int) -> None:
    session = state.sessions[v["session"]]
    state.sessions[v["session"]] = replace(session, budget=v["budget"])
    state.balances[session.payer] -= v["amount"]


def _session_ended(state: ChainState, v: dict[str, Any], block: int) -> None:
    state.sessions[v["session"]] = replace(state.sessions[v["session"]], ends_at=v["endsAt"])


def _session_closed(state: ChainState, v: dict[str, Any], block: int) -> None:
    del state.sessions[v["session"]]
    del state.session_numbers[session_number(v["session"])]
    state.balances[v["payer"]] += v["returned"]


def _batch_settled(state: ChainState, v: dict[str, Any], block: int) -> None:
    words = [int.from_bytes(v["debits"][i : i + 32], "big") for i in range(0, len(v["debits"]), 32)]
    debits = tuple(Debit(state.session_numbers[word >> 96], word % 2**96) for word in words)
    payouts = tuple(Payout(to_checksum_address(f"0x{word >> 96:040x}"), word % 2**96) for word in v["payouts"])
    batch = SettledBatch(v["batch"], v["gateway"], debits, payouts, v["header"], block)
    for debit in debits:
        session = state.sessions[debit.session]
        state.sessions[debit.session] = replace(session, settled=session.settled + debit.amount)
    for payout in payouts:
        state.balances[payout.node] += payout.amount
    state.fees[batch.gateway] += batch.fee
    state.batches[batch.gateway, batch.root] = batch


def _claim_opened(state: ChainState, v: dict[str, Any], block: int) -> None:
    _count_claim(state, v["session"], 1)
    state.claims[v["assignment"]] = OpenClaim(v["node"], v["session"], v["bond"])
    state.balances[v["node"]] -= v["bond"]


def _claim_voided(state: ChainState, v: dict[str, Any], block: int) -> None:
    claim = state.claims.pop(v["assignment"])
    _count_claim(state, claim.session, -1)
    state.balances[v["to"]] += claim.bond


def _claim_paid(state: ChainState, v: dict[str, Any], block: int) -> None:
    claim = state.claims.pop(v["assignment"])
    _count_claim(state, claim.session, -1)
    session = state.sessions[claim.session]
    state.sessions[claim.session] = replace(session, settled=session.settled + v["amount"])
    state.balances[claim.node] += v["amount"] + claim.bond


def _count_claim(state: ChainState, session: bytes, change: int) -> None:
    old = state.sessions[session]
    state.sessions[session] = replace(old, num_claims=old.num_claims + change)


HANDLERS: dict[tuple[str, str], Callable[[ChainState, dict[str, Any], int], None]] = {
    ("NodeRegistry", "NodeRegistered"): _node_registered,
    ("NodeRegistry", "NodeDeregistered"): _node_deregistered,
    ("NodeRegistry", "SignerChanged"): _change_node(signer="newSigner"),
    ("NodeRegistry", "RolesChanged"): _change_node(roles="roles"),
    ("NodeRegistry", "EndpointChanged"): _change_node(endpoint="endpoint", url="url", link_key="linkKey"),
    ("NodeRegistry", "ProfileChanged"): _change_node(region="region", profile="profile"),
    ("NodeRegistry", "StakeAdded"): _change_node(stake="stake"),
    ("NodeRegistry", "UnstakeBegun"): _change_node(stake="stake", thawing="thawing", thaw_ends_at="thawEndsAt"),
    ("NodeRegistry", "UnstakeCancelled"): _unstake_cancelled,
    ("NodeRegistry", "StakeWithdrawn"): _stake_withdrawn,
    ("NodeRegistry", "StakeSlashed"): _stake_slashed,
    ("NodeRegistry", "OfferSet"): _offer_set,
    ("NodeRegistry", "OfferRemoved"): _offer_removed,
    ("ModelRegistry", "ModelPublished"): _model_published,
    ("ModelRegistry", "RolloutSet"): _rollout_set,
    ("ModelRegistry", "VersionDeprecated"): _version_deprecated,
    ("InferenceLedger", "Deposited"): _deposited,
    ("InferenceLedger", "Withdrawn"): _withdrawn,
    ("InferenceLedger", "Transferred"): _transferred,
    ("InferenceLedger", "Compensated"): _compensated,
    ("InferenceLedger", "FeesCollected"): _fees_collected,
    ("InferenceLedger", "SessionOpened"): _session_opened,
    ("InferenceLedger", "SessionToppedUp"): _session_topped_up,
    ("InferenceLedger", "SessionEnded"): _session_ended,
    ("InferenceLedger", "SessionClosed"): _session_closed,
    ("InferenceLedger", "BatchSettled"): _batch_settled,
    ("InferenceLedger", "ClaimOpened"): _claim_opened,
    ("InferenceLedger", "ClaimVoided"): _claim_voided,
    ("InferenceLedger", "ClaimPaid"): _claim_paid,
}
