"""Stakes: who may serve, and what can still be taken from whom."""

from __future__ import annotations

from declai.chain.contracts.nodes import Role
from declai.chain.parameters import Parameters
from tests.contracts.model.accounts import NOBODY
from tests.contracts.model.reference import Node, Reference, SignerRecord, refuse_if


def minimum(parameters: Parameters, roles: int) -> int:
    """The sum over the roles."""
    minima = {
        Role.WORKER: parameters.min_worker_stake,
        Role.GATEWAY: parameters.min_gateway_stake,
        Role.AUDITOR: parameters.min_auditor_stake,
    }
    return sum(amount for role, amount in minima.items() if roles & role)


def is_active(model: Reference, operator: str, role: Role) -> bool:
    node = model.nodes[operator]
    is_backed = node.stake >= minimum(model.parameters, node.roles)
    return bool(node.roles & role) and is_backed and model.now >= node.jailed_until


def locked(model: Reference, operator: str) -> int:
    """Every credit earned lately keeps a multiple of itself from leaving."""
    return model.parameters.lock_multiple * model.locked_earnings(operator)


def register(model: Reference, sender: str, signer: str, roles: int, stake: int) -> None:
    """Who registers here has a url, an endpoint and a link key of his own."""
    node = model.nodes[sender]
    refuse_if(
        NodeRegistryAlreadyRegistered=node.roles != 0,
        NodeRegistryStakeTooSmall=stake < minimum(model.parameters, roles),
        ERC20InsufficientBalance=stake > model.wallets[sender],
        **_not_free(model, sender, signer),
    )
    node.roles = roles
    _take_signer(model, sender, signer)
    model.move(sender, model.registry, stake)
    node.stake += stake


def deregister(model: Reference, sender: str) -> None:
    """All its stake thaws."""
    node = _registered(model, sender)
    _retire_signer(model, sender)
    node.roles, node.signer = 0, None
    if node.stake:
        _thaw(model, node, node.stake)


def set_signer(model: Reference, sender: str, signer: str) -> None:
    _registered(model, sender)
    refuse_if(**_not_free(model, sender, signer))
    _retire_signer(model, sender)
    _take_signer(model, sender, signer)


def add_stake(model: Reference, sender: str, amount: int) -> None:
    node = _registered(model, sender)
    refuse_if(NodeRegistryZeroAmount=amount == 0, ERC20InsufficientBalance=amount > model.wallets[sender])
    model.move(sender, model.registry, amount)
    node.stake += amount


def begin_unstake(model: Reference, sender: str, amount: int) -> None:
    node = _registered(model, sender)
    refuse_if(NodeRegistryZeroAmount=amount == 0, NodeRegistryInsufficientStake=amount > node.stake)
    _thaw(model, node, amount)


def cancel_unstake(model: Reference, sender: str) -> None:
    """All that is thawing goes back to work."""
    node = _registered(model, sender)
    refuse_if(NodeRegistryNothingThawing=node.thawing == 0)
    node.stake, node.thawing = node.stake + node.thawing, 0


def withdraw(model: Reference, sender: str) -> None:
    """What recent earnings lock, and the stake at work does not cover, stays."""
    node = model.nodes[sender]
    kept = max(locked(model, sender) - node.stake, 0)
    refuse_if(
        NodeRegistryNothingThawing=node.thawing == 0,
        NodeRegistryStillThawing=model.now < node.thaw_ends_at,
        NodeRegistryStakeLocked=kept >= node.thawing,
    )
    model.move(model.registry, sender, node.thawing - kept)
    node.thawing = kept


def slash(model: Reference, operator: str, amount: int) -> int:
    """What the court takes for itself to hand out: first what is at work, then what thaws. Returns what there was."""
    node = model.nodes[operator]
    from_stake = min(amount, node.stake)
    from_thawing = min(amount - from_stake, node.thawing)
    node.stake -= from_stake
    node.thawing -= from_thawing
    model.move(model.registry, model.court, from_stake + from_thawing)
    return from_stake + from_thawing


def _registered(model: Reference, operator: str) -> Node:
    node = model.nodes[operator]
    refuse_if(NodeRegistryNotRegistered=node.roles == 0)
    return node


def _thaw(model: Reference, node: Node, amount: int) -> None:
    """The clock of all that is thawing starts anew."""
    node.stake -= amount
    node.thawing += amount
    node.thaw_ends_at = model.now + model.parameters.stake_thaw_s


def _not_free(model: Reference, operator: str, signer: str) -> dict[str, bool]:
    """A signer belongs to one operator forever, and a registered operator is nobody else's signer."""
    record = model.signers.get(signer)
    is_other_operator = signer != operator and model.nodes[signer].roles != 0
    return {
        "NodeRegistryZeroSigner": signer == NOBODY,
        "NodeRegistrySignerTaken": (record is not None and record.operator != operator) or is_other_operator,
    }


def _take_signer(model: Reference, operator: str, signer: str) -> None:
    model.nodes[operator].signer = signer
    model.signers[signer] = SignerRecord(operator)


def _retire_signer(model: Reference, operator: str) -> None:
    signer = model.nodes[operator].signer
    assert signer is not None
    model.signers[signer] = SignerRecord(operator, model.now)
