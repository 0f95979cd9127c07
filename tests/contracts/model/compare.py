"""Model, views and event index side by side: everything that can be asked is asked, and each must tell the same."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from eth_utils.address import to_checksum_address

from declai.chain.contracts.ledger import ANCHOR_BYTES, SessionState
from declai.chain.contracts.nodes import RegisteredNode, Role
from declai.chain.merkle import SumTree, batch_root, header_block, payout_word
from declai.chain.state import OpenClaim
from tests.contracts.model import stakes
from tests.contracts.model.accounts import NOBODY
from tests.contracts.model.bench import Bench, View
from tests.contracts.model.reference import Content, Reference

FULL_SCORE = 10**18


def compare_views(model: Reference, bench: Bench) -> dict[View, tuple[Any, ...]]:
    """Asks all views of which the model has something to say; returns what they said."""
    expected = dict(_ledger(model, bench) | _registry(model, bench) | _court(model, bench) | _token(model, bench))
    unforeseen = [View("NodeRegistry", "reputation", (node,)) for node in model.nodes]
    views = [*expected, *unforeseen, *(View("NodeRegistry", "node", (node,)) for node in model.nodes)]
    told = {view: view.decode(raw) for view, raw in zip(views, bench.read(views), strict=True)}
    wrong = [f"{view}: chain {told[view]}, model {value}" for view, value in expected.items() if told[view] != value]
    assert not wrong, "\n".join(wrong)
    assert all(0 <= told[view][0] <= FULL_SCORE for view in unforeseen)
    return told


def _token(model: Reference, bench: Bench) -> dict[View, tuple[Any, ...]]:
    holders = [*bench.keys, model.ledger, model.registry, model.court]
    wallets = {View("CreditToken", "balanceOf", (holder,)): (model.wallets[holder],) for holder in holders}
    return wallets | {View("CreditToken", "totalSupply"): (model.supply,)}


def _ledger(model: Reference, bench: Bench) -> dict[View, tuple[Any, ...]]:
    found: dict[View, tuple[Any, ...]] = {View("InferenceLedger", "currentEpoch"): (model.epoch,)}
    for person in bench.keys:
        found[View("InferenceLedger", "balanceOf", (person,))] = (model.balances[person],)
        settler = model.settlers.get(person, NOBODY)
        found[View("InferenceLedger", "gatewayAccount", (person,))] = (settler.lower(), model.fees[person])
    for node in model.nodes:
        found[View("InferenceLedger", "lockedEarnings", (node,))] = (model.locked_earnings(node),)
    for terms in model.opened:
        s = model.sessions.get(terms.session)
        values = (s.budget, s.settled, s.ends_at, len(model.open_claims(terms.session))) if s else (0, 0, 0, 0)
        found[View("InferenceLedger", "session", (terms.as_struct(),))] = (values,)
    for assignment, c in model.claims.items():
        claim = (c.node.lower(), c.amount, c.receipt, c.session, c.nonce, c.pays_at or 0, c.cap, c.acknowledged)
        found[View("InferenceLedger", "directClaim", (assignment,))] = (claim,)
    for place, anchor in model.anchors.items():
        found[View("InferenceLedger", "anchor", place)] = (root_of(anchor.content)[:ANCHOR_BYTES], anchor.settled_at)
    return found


def _registry(model: Reference, bench: Bench) -> dict[View, tuple[Any, ...]]:
    total = sum(node.stake + node.thawing for node in model.nodes.values())
    found: dict[View, tuple[Any, ...]] = {View("NodeRegistry", "totalStaked"): (total,)}
    for operator, node in model.nodes.items():
        for role in Role:
            found[View("NodeRegistry", "isActive", (operator, int(role)))] = (stakes.is_active(model, operator, role),)
        found[View("NodeRegistry", "lockedStake", (operator,))] = (stakes.locked(model, operator),)
        found[View("NodeRegistry", "jailedUntil", (operator,))] = (node.jailed_until,)
    for signer, record in model.signers.items():
        found[View("NodeRegistry", "signerRecord", (signer,))] = (record.operator.lower(), record.retired_at or 0)
    return found


def _court(model: Reference, bench: Bench) -> dict[View, tuple[Any, ...]]:
    found: dict[View, tuple[Any, ...]] = {
        View("DisputeCourt", "balanceOf", (person,)): (model.awards[person],) for person in bench.keys
    }
    for asked, c in model.challenges.items():
        challenge = (c.challenger.lower(), c.decided_at or 0, c.node.lower(), c.amount)
        found[View("DisputeCourt", "challenge", asked)] = (challenge,)
    for proved in model.equivocated:
        found[View("DisputeCourt", "equivocated", proved)] = (True,)
    return found


def compare_index(model: Reference, bench: Bench, told: Mapping[View, tuple[Any, ...]]) -> None:
    """The fold over the events is the same as the model, or as the view where it holds more than the model."""
    state = bench.index.sync()
    assert _present(state.balances) == _present(model.balances)
    assert _present(state.fees) == _present(model.fees)
    assert state.sessions == {session: _as_indexed(model, session) for session in model.sessions}
    bond = model.parameters.claim_bond
    under_way = {key: claim for key, claim in model.claims.items() if claim.pays_at is not None}
    assert state.claims == {key: OpenClaim(claim.node, claim.session, bond) for key, claim in under_way.items()}
    settled = {(place[0], root_of(anchor.content)) for place, anchor in model.anchors.items()}
    assert settled <= state.batches.keys()
    for operator, node in _nodes(model, bench, told):
        m = model.nodes[operator]
        assert (node.signer, node.roles) == (m.signer or NOBODY, m.roles)
        assert (node.stake, node.thawing, node.thaw_ends_at) == (m.stake, m.thawing, m.thaw_ends_at)
        assert operator not in state.nodes or state.nodes[operator] == node
        assert operator in state.nodes or node.term == 0


def _nodes(
    model: Reference, bench: Bench, told: Mapping[View, tuple[Any, ...]]
) -> Iterator[tuple[str, RegisteredNode]]:
    for operator in list(model.nodes):
        signer, *rest = told[View("NodeRegistry", "node", (operator,))][0]
        yield operator, RegisteredNode(to_checksum_address(signer), *rest)


def _as_indexed(model: Reference, session: bytes) -> SessionState:
    s, num_claims = model.sessions[session], len(model.open_claims(session))
    return SessionState(s.terms.key, s.settled, s.terms.gateway, s.budget, s.terms.payer, s.ends_at, num_claims)


def _present(amounts: Mapping[str, int]) -> dict[str, int]:
    return {account: amount for account, amount in amounts.items() if amount}


@functools.lru_cache(1_000)
def root_of(content: Content) -> bytes:
    """What the ledger anchors of a batch, in full."""
    words = [payout_word(node, amount) for node, amount in content.payouts]
    return batch_root(words, header_of(content))


def header_of(content: Content) -> bytes:
    """Digest of the block with the subroots and the link."""
    subroots = [SumTree(receipts).root for receipts in content.receipts]
    return sha256(header_block(subroots, content.link)).digest()
