"""A deployment with everybody in it, and the gas of what they send: what the benchmarks of gas share."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from declai.chain.client import Chain, Deployment, Rpc
from declai.chain.contracts.binding import Call
from declai.chain.contracts.ledger import Claim, Payout
from declai.chain.contracts.nodes import Offer, Registration, Role
from declai.chain.deploy import deploy
from declai.chain.merkle import SumTree, header_block
from declai.chain.messages import InferenceRequest, new_account, sign
from declai.chain.parameters import Parameters
from declai.chain.pricing import UNITS_PER_CREDIT
from declai.chain.sender import TransactionSender
from declai.devnet.chain_setup import fund

COST = 1_234_567_890_123_456_789
# Caps in whole multiples of 2**40 base units (a millionth of a credit): zero bytes of calldata cost a quarter.
CAP = (2 * COST >> 40) + 1 << 40


class Bench:
    """A deployment with a gateway, payers, nodes, and the gas of what they send."""

    def __init__(self, rpc_url: str, num_payers: int, num_nodes: int) -> None:
        treasury = new_account()
        self.gateway, self.signer, self.payer = new_account(), new_account(), new_account()
        self.nodes = sorted((new_account() for _ in range(num_nodes)), key=lambda node: int(node.address, 16))
        self.keys = [new_account() for _ in range(num_payers)]
        everyone = [treasury, self.gateway, self.signer, self.payer, *self.nodes]
        probe = Chain(rpc_url, deploy_first(rpc_url, treasury, everyone))
        self.chain = probe
        self.senders = {account.address: TransactionSender(probe, account) for account in everyone}
        for account in everyone[1:]:
            self.gas(treasury.address, probe.token.mint(account.address, 100_000 * UNITS_PER_CREDIT))
            for spender in (probe.nodes.address, probe.ledger.address, probe.court.address):
                self.gas(account.address, probe.token.approve(spender, 2**96 - 1))
        self.gas_of_register = self._register(self.gateway.address, self.signer.address, Role.GATEWAY)
        self.node_signers = {node.address: new_account() for node in self.nodes}
        for node in self.nodes:
            self._register(node.address, self.node_signers[node.address].address, Role.WORKER)
        self.gas(self.gateway.address, probe.ledger.set_settler(self.signer.address))
        self.gas(self.payer.address, probe.ledger.deposit(50_000 * UNITS_PER_CREDIT))
        for node in self.nodes:
            self.gas(node.address, probe.ledger.deposit(10 * UNITS_PER_CREDIT))
        self.sessions = [self.open(key.address) for key in self.keys]
        self.nonces = dict.fromkeys(self.sessions, 0)
        self.slot = 0

    def gas(self, account: str, call: Call) -> int:
        return int(self.senders[account].send(call)["gasUsed"])

    def _register(self, operator: str, signer: str, role: Role) -> int:
        registration = Registration(
            signer=signer,
            roles=int(role),
            link_key=new_account().key[:32],
            endpoint="tcp://203.0.113.7:8082",
            url="https://gateway.example" if role is Role.GATEWAY else "",
            region="eu-west",
        )
        stake = 10 * self.chain.nodes.minimum_stake(role)
        return self.gas(operator, self.chain.nodes.register(registration, stake))

    def open(self, key: str) -> bytes:
        call = self.chain.ledger.open_session(self.gateway.address, key, 1_000 * UNITS_PER_CREDIT, 30 * 86_400)
        receipt = self.senders[self.payer.address].send(call)
        self.gas_of_open = int(receipt["gasUsed"])
        events = (self.chain.ledger.decode(log) for log in receipt["logs"])
        return bytes(next(event.values["session"] for event in events if event and event.name == "SessionOpened"))

    def request(self, number: int, nonce: int, spent: int) -> InferenceRequest:
        return InferenceRequest(
            session=self.sessions[number],
            nonce=nonce,
            model=b"m" * 32,
            body=new_account().key[:32],
            max_tokens=256,
            tier=1,
            max_cost=CAP,
            acked_below=nonce,
            spent=spent,
            deadline=int(time.time()) + 600,
        )

    def settle(
        self, num_sessions: int, num_nodes: int, num_receipts: int, slot: int | None = None
    ) -> tuple[int, bytes]:
        """A batch in which all sessions pay one more request, over this many receipts; its gas and calldata."""
        claims = []
        for number in range(num_sessions):
            session = self.sessions[number]
            nonce = self.nonces[session]
            request = self.request(number, nonce, nonce * COST)
            claims.append(Claim(request, sign(request, self.chain.domain, self.keys[number]), COST))
            self.nonces[session] = nonce + 1
        paid = num_sessions * COST * 100 // 105
        trees = [self._tree(paid // num_nodes, num_receipts // num_nodes) for _ in range(num_nodes)]
        payouts = [Payout(node.address, tree.total) for node, tree in zip(self.nodes, trees, strict=False)]
        header = header_block([tree.root for tree in trees], b"\x01\x55\x12\x20" + bytes(range(32)))
        used = self.slot if slot is None else slot
        self.slot += slot is None
        call = self.chain.ledger.settle(self.gateway.address, claims, payouts, hashlib.sha256(header).digest(), used)
        return self.gas(self.signer.address, call), call.data

    def _tree(self, total: int, num_receipts: int) -> SumTree:
        each = total // max(num_receipts, 1)
        return SumTree([(index.to_bytes(32, "big"), each) for index in range(max(num_receipts, 1))])

    def auditors(self, number: int, offer: Offer, model: bytes) -> list[str]:
        """New auditors who hold layers of a model; the payer pays for their stakes and gas."""
        accounts = [new_account() for _ in range(number)]
        fund(self.chain, [account.address for account in accounts])
        for account in accounts:
            self.senders[account.address] = TransactionSender(self.chain, account)
            self.gas(self.payer.address, self.chain.token.transfer(account.address, 2_000 * UNITS_PER_CREDIT))
            self.gas(account.address, self.chain.token.approve(self.chain.nodes.address, 2**96 - 1))
            self._register(account.address, new_account().address, Role.AUDITOR)
            self.gas(account.address, self.chain.nodes.set_offer(model, offer))
        return [account.address for account in accounts]

    def warp(self, seconds: int) -> None:
        self.chain.w3.provider.make_request("evm_increaseTime", [seconds])  # type: ignore[arg-type]
        self.chain.w3.provider.make_request("evm_mine", [])  # type: ignore[arg-type]


def deploy_first(rpc_url: str, treasury: Any, everyone: list[Any]) -> Deployment:
    fund(Rpc(rpc_url), [account.address for account in everyone])
    return deploy(rpc_url, treasury, Parameters(treasury=treasury.address))
