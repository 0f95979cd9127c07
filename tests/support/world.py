"""Contracts on a development chain, and ways to act on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eth_account.signers.local import LocalAccount

from declai.chain.client import Chain
from declai.chain.contracts.binding import Call
from declai.chain.contracts.nodes import Registration, Role
from declai.chain.messages import new_account
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.chain.sender import TransactionSender
from declai.devnet.chain_setup import fund


@dataclass
class World:
    """Fresh contracts, and ways to act on them."""

    chain: Chain
    treasury: LocalAccount

    def rich(self, amount: int = 10_000 * UNITS_PER_CREDIT) -> LocalAccount:
        """A new account with ETH and credits."""
        account = new_account()
        fund(self.chain, [account.address])
        if amount:
            self.send(self.treasury, self.chain.token.mint(account.address, amount))
        return account

    def send(self, account: LocalAccount, call: Call) -> None:
        TransactionSender(self.chain, account).send(call)

    def deposit(self, account: LocalAccount, amount: int) -> None:
        self.send(account, self.chain.token.approve(self.chain.ledger.address, amount))
        self.send(account, self.chain.ledger.deposit(amount))

    def register(self, role: Role, signer: LocalAccount | None = None, link_key: bytes | None = None) -> LocalAccount:
        """A new operator, registered with the role's minimum stake."""
        operator, signer = self.rich(), signer or new_account()
        stake = self.chain.nodes.minimum_stake(role)
        self.send(operator, self.chain.token.approve(self.chain.nodes.address, stake))
        registration = Registration(
            signer=signer.address,
            roles=int(role),
            link_key=link_key or new_account().key[:32],
            endpoint="tcp://127.0.0.1:9",
            url="http://127.0.0.1:9",
        )
        self.send(operator, self.chain.nodes.register(registration, stake))
        if role & Role.GATEWAY:
            self.send(operator, self.chain.ledger.set_settler(signer.address))
        return operator

    def open_session(
        self, payer: LocalAccount, gateway: LocalAccount, key: LocalAccount, budget: int, duration_s: int = 86_400
    ) -> bytes:
        """A session paid from the payer's ledger balance; returns its id."""
        sender = TransactionSender(self.chain, payer)
        receipt = sender.send(self.chain.ledger.open_session(gateway.address, key.address, budget, duration_s))
        events = [self.chain.ledger.decode(log) for log in receipt["logs"]]
        session: bytes = next(e.values["session"] for e in events if e is not None and e.name == "SessionOpened")
        return session


def rpc(chain: Chain, method: str, *parameters: Any) -> Any:
    """A call of the development chain's own, such as `evm_mine`."""
    return chain.w3.provider.make_request(method, list(parameters))["result"]  # type: ignore[arg-type]
