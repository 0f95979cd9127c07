"""An operator on the chain: registration, stake and offers. What a contract would refuse is said before it is sent."""

from __future__ import annotations

import time

from eth_account.signers.local import LocalAccount
from web3.types import TxReceipt

from declai.chain.client import Chain
from declai.chain.contracts.models import model_id
from declai.chain.contracts.nodes import Offer, RegisteredNode, Registration, Role
from declai.chain.errors import ContractRevert
from declai.chain.fields import NUMERIC_PROFILES
from declai.chain.pricing import format_credits
from declai.chain.sender import TransactionSender
from declai.errors import DeclaiError


def local_time(seconds: int) -> str:
    """A Unix time for people, in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


class Operator:
    """One operator's account. Amounts in base units; every method that changes something waits until it is mined."""

    def __init__(self, chain: Chain, account: LocalAccount) -> None:
        self.chain = chain
        self.address = str(account.address)
        self._sender = TransactionSender(chain, account)

    def node(self) -> RegisteredNode:
        """The node as the registry has it now.

        Raises:
            DeclaiError: this account registered none.
        """
        node = self.chain.nodes.node(self.address)
        if not node.roles:
            raise DeclaiError(
                f"{self.address} has registered no node: is --wallet your operator's? Register with "
                "`declai node register`"
            )
        return node

    def register(self, registration: Registration, stake: int | None) -> TxReceipt:
        """Stake (the minimum when None) and register; a gateway's signer is let settle for it.

        Raises:
            DeclaiError: registered already, too little stake, or the signer or link key is somebody else's.
        """
        nodes, roles = self.chain.nodes, Role(registration.roles)
        old = nodes.node(self.address)
        if old.roles:
            raise DeclaiError(
                f"{self.address} is registered already, with signer {old.signer}: leave first with "
                "`declai node deregister`, or use another wallet"
            )
        minimum = nodes.minimum_stake(roles)
        stake = minimum if stake is None else stake
        if stake < minimum:
            raise DeclaiError(
                f"a stake of {format_credits(stake)} credits is too small: the minimum for {_names(roles)} is "
                f"{format_credits(minimum)}, which is what is staked without --stake"
            )
        self._check_keys(registration)
        self._allow(stake)
        receipt = self._sender.send(nodes.register(registration, stake))
        if roles & Role.GATEWAY:
            self._sender.send(self.chain.ledger.set_settler(registration.signer))
        return receipt

    def _check_keys(self, registration: Registration) -> None:
        """Raises DeclaiError when the signer or the link key is, or was, another operator's."""
        nodes, signer = self.chain.nodes, registration.signer
        # Whose signer it was, and who registered a node with the address itself.
        for holder in (nodes.holder_of_signer(signer), nodes.operator_of(signer)):
            if int(holder, 16) and holder != self.address:
                raise DeclaiError(
                    f"{signer} signs for {holder}, and a signer never changes sides: make another one with "
                    "`declai wallet new NAME`"
                )
        holder = nodes.operator_of_link_key(registration.link_key)
        if int(holder, 16) and holder != self.address:
            raise DeclaiError(
                f"the link key 0x{registration.link_key.hex()} belongs to {holder}: name a new file with --link-key, "
                "and another key is made there"
            )

    def deregister(self) -> TxReceipt:
        self.node()
        return self._sender.send(self.chain.nodes.deregister())

    def add_stake(self, amount: int) -> TxReceipt:
        self.node()
        self._allow(amount)
        return self._sender.send(self.chain.nodes.add_stake(amount))

    def begin_unstake(self, amount: int) -> TxReceipt:
        """Raises DeclaiError when there is less stake at work."""
        stake = self.node().stake
        if amount > stake:
            raise DeclaiError(
                f"{format_credits(amount)} credits are more than the stake of {format_credits(stake)}: unstake that "
                "much at most (what thaws already is on its way)"
            )
        return self._sender.send(self.chain.nodes.begin_unstake(amount))

    def withdraw_stake(self) -> tuple[int, TxReceipt]:
        """Bring stake that has thawed into the wallet, but for what recent earnings lock; returns how much.

        Raises:
            DeclaiError: nothing thaws, it thaws still, or recent earnings lock all of it.
        """
        nodes, now = self.chain.nodes, self.chain.timestamp()
        node, locked = nodes.node(self.address), nodes.locked_stake(self.address)
        if not node.thawing:
            raise DeclaiError(f"no stake of {self.address} is thawing: begin with `declai node unstake AMOUNT`")
        amount = format_credits(node.thawing)
        if now < node.thaw_ends_at:
            raise DeclaiError(f"{amount} credits thaw until {local_time(node.thaw_ends_at)}: try again then")
        if node.stake + node.thawing <= locked:
            raise DeclaiError(
                f"recent earnings lock {format_credits(locked)} credits of stake and there are not more: try again "
                f"when the lock is over, by {local_time(self.lock_ends_by(now))} if nothing more is earned"
            )
        receipt = self._sender.send(nodes.withdraw())
        return node.thawing - nodes.node(self.address).thawing, receipt

    def lock_ends_by(self, now: int) -> int:
        """When the lock of what is earned until `now` is over at the latest (Unix seconds): earnings lock stake in
        their epoch and in the next one."""
        return now + 2 * self.chain.ledger.parameters().epoch_length_s

    def set_offer(self, model: str, offer: Offer) -> TxReceipt:
        """Offer layers of a model; replaces the offer in the same numeric profile.

        Raises:
            DeclaiError: no such model or layers, or the node is no worker.
        """
        if not self.node().roles & (Role.WORKER | Role.AUDITOR):
            raise DeclaiError(f"{self.address} is registered as a gateway alone: workers and auditors offer layers")
        num_layers = self._num_layers(model)
        if not 0 <= offer.first_layer < offer.end_layer <= num_layers:
            raise DeclaiError(
                f"{model} has layers 0-{num_layers - 1}, not {offer.first_layer}-{offer.end_layer - 1}: offer layers "
                "that it has"
            )
        return self._sender.send(self.chain.nodes.set_offer(model_id(model), offer))

    def remove_offer(self, model: str, numeric_profile: int) -> TxReceipt:
        """Raises DeclaiError when there is no such offer."""
        if not self.chain.nodes.offer(self.address, model_id(model), numeric_profile).end_layer:
            names = {number: name for name, number in NUMERIC_PROFILES.items()}
            raise DeclaiError(
                f"{self.address} has no offer for {model} in {names[numeric_profile]}: name the format of the one that "
                "you mean with --numeric-profile"
            )
        return self._sender.send(self.chain.nodes.remove_offer(model_id(model), numeric_profile))

    def _num_layers(self, model: str) -> int:
        try:
            return self.chain.models.current(model_id(model))[1].num_layers
        except ContractRevert:
            raise DeclaiError(f"no model is published as {model!r}: see `declai model list`") from None

    def _allow(self, amount: int) -> None:
        """Let the registry pull `amount` from the wallet. Raises DeclaiError when it holds less."""
        token, registry = self.chain.token, self.chain.nodes.address
        held = token.balance_of(self.address)
        if held < amount:
            kept = self.chain.ledger.balance_of(self.address)
            raise DeclaiError(
                f"the wallet {self.address} holds {format_credits(held)} credits, {format_credits(amount)} are needed: "
                + (
                    f"{format_credits(kept)} lie in the ledger, fetch them with `declai credits withdraw`"
                    if kept
                    else "have some sent to it (`declai credits send`)"
                )
            )
        if token.allowance(self.address, registry) != amount:
            self._sender.send(token.approve(registry, amount))


def _names(roles: Role) -> str:
    return " and ".join(f"a {role.name.lower()}" for role in Role if role in roles and role.name)
