"""Gas: per receipt for batches of any size, and of every other thing that people pay gas for. Measured on Anvil.

The reference, measured in the same run, is one voucher per payer and node, as The Graph's contracts redeem them: a
signed total that debits one payer and pays one node. Here that is a batch of one claim and one payout.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

from _kit import record

from chain.client import Chain
from chain.contracts.binding import Call
from chain.contracts.ledger import Claim, Inclusion, Payout, SignedWork
from chain.contracts.nodes import Registration, Role
from chain.deploy import deploy
from chain.merkle import SumTree, header_block, payout_word
from chain.messages import (
    Acceptance,
    Assignment,
    InferenceReceipt,
    InferenceRequest,
    digest,
    new_account,
    sign,
)
from chain.parameters import Parameters
from chain.pricing import UNITS_PER_CREDIT
from chain.sender import TransactionSender
from declai.devnet.chain_setup import fund
from declai.devnet.processes import start_chain

SIZES = (100, 1_000, 10_000)
COST = 1_234_567_890_123_456_789
# Caps in whole multiples of 2**40 base units (a millionth of a credit): zero bytes of calldata cost a quarter.
CAP = (2 * COST >> 40) + 1 << 40
HONESTY = [
    "Accounts exist, one request is in flight per session, and the batch goes into a slot that was used before.",
    "The first batch of an epoch that pays a node also reports its last epoch's work: its line stands apart.",
    "Gas of Anvil's Cancun rules; a rollup charges calldata and execution by its own.",
    "The voucher reference is our own leanest path for one payer and one node, not The Graph's deployed code.",
]


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

    def warp(self, seconds: int) -> None:
        self.chain.w3.provider.make_request("evm_increaseTime", [seconds])  # type: ignore[arg-type]
        self.chain.w3.provider.make_request("evm_mine", [])  # type: ignore[arg-type]


def deploy_first(rpc_url: str, treasury: Any, everyone: list[Any]) -> Any:
    from chain.client import Rpc

    fund(Rpc(rpc_url), [account.address for account in everyone])
    return deploy(rpc_url, treasury, Parameters(treasury=treasury.address))


def batches(bench: Bench) -> dict[str, Any]:
    """Gas of batches of 10 payers and 6 nodes, first in fresh slots, then in used ones."""
    figures: dict[str, Any] = {}
    for _ in range(5):
        bench.settle(10, 6, 100)
    bench.warp(5 * 86_400)
    bench.settle(10, 6, 100, slot=0)  # the nodes' standings come into being
    bench.warp(5 * 86_400)
    figures["batch_first_of_epoch_gas"], _ = bench.settle(10, 6, 100, slot=1)
    for slot, size in enumerate(SIZES, start=2):
        gas, data = bench.settle(10, 6, size, slot=slot)
        figures[f"batch_{size}_gas"] = gas
        figures[f"batch_{size}_gas_per_receipt"] = round(gas / size, 2)
    calldata = sum(4 if byte == 0 else 16 for byte in data)
    figures |= {
        "split_base": 21_000,
        "split_calldata": calldata,
        "split_signatures": 10 * 3_000,
        "split_storage": 18 * (2_100 + 2_900),
        "split_event": 375 * 4 + 8 * (32 * (5 + 10 + 6)),
    }
    figures["split_computation"] = figures["batch_10000_gas"] - sum(v for k, v in figures.items() if "split" in k)
    return figures


def vouchers(bench: Bench) -> dict[str, Any]:
    """What 10 payers and 6 nodes cost with one voucher for each pair."""
    gas, _ = bench.settle(1, 1, 1)
    each = gas - 17_100  # as in a slot that was used before
    return {"voucher_gas": each, "vouchers_of_60_pairs_gas": 60 * each}


def disputes(bench: Bench) -> dict[str, Any]:
    """Direct claim, payout challenge and its answer, equivocation."""
    chain, node, domain = bench.chain, bench.nodes[0], bench.chain.domain
    request = bench.request(0, 10_000, 0)
    now = chain.timestamp()
    assignment = Assignment(
        request=digest(request, domain),
        stage=0,
        first_layer=0,
        end_layer=4,
        numeric_profile=0,
        shard=bytes(32),
        node=node.address,
        prompt_price=10**22,
        output_price=10**22,
        attempt=1,
        deadline=now,
    )
    work = SignedWork(request, sign(request, domain, bench.keys[0]), assignment, sign(assignment, domain, bench.signer))
    receipt = InferenceReceipt(
        assignment=digest(assignment, domain),
        node=node.address,
        prompt_tokens=10,
        output_tokens=10,
        inputs=b"i" * 32,
        outputs=b"o" * 32,
        cost=10**17,
        started_at=now,
        finished_at=now,
    )
    other = receipt.model_copy(update={"outputs": b"x" * 32})
    challenged = receipt.model_copy(update={"assignment": b"a" * 32})
    figures: dict[str, Any] = {}
    bench.warp(3_700)
    figures["open_claim_gas"] = bench.gas(node.address, chain.ledger.open_claim(work, receipt))
    bench.warp(86_400 // 2)
    assignment_digest = digest(assignment, domain)
    figures["pay_claim_gas"] = bench.gas(node.address, chain.ledger.pay_claim(request.session, assignment_digest))
    receipt_digest = digest(challenged, domain)
    acceptance = sign(Acceptance(receipt=receipt_digest), domain, bench.signer)
    call = chain.court.challenge_payout(bench.gateway.address, challenged, acceptance)
    figures["challenge_payout_gas"] = bench.gas(node.address, call)
    inclusion = settled_inclusion(bench, receipt_digest, challenged.cost)
    answer = chain.court.answer_challenge(receipt_digest, inclusion)
    figures["answer_challenge_gas"] = bench.gas(bench.gateway.address, answer)
    signer = bench.node_signers[node.address]
    proof = chain.court.prove_equivocation(receipt, sign(receipt, domain, signer), other, sign(other, domain, signer))
    figures["prove_equivocation_gas"] = bench.gas(bench.payer.address, proof)
    return figures


def settled_inclusion(bench: Bench, receipt: bytes, cost: int) -> Inclusion:
    """Settles a batch of 1,000 receipts of one node, this one among them, and gives its path."""
    tree = SumTree([(receipt, cost), *((index.to_bytes(32, "big"), 10**15) for index in range(999))])
    session = bench.sessions[0]
    settled = bench.chain.ledger.session(session).settled
    request = bench.request(0, 20_000, settled + tree.total)
    claim = Claim(request, sign(request, bench.chain.domain, bench.keys[0]), 0)
    link = b"\x01\x55\x12\x20" + bytes(32)
    header = hashlib.sha256(header_block([tree.root], link)).digest()
    payout = Payout(bench.nodes[0].address, tree.total)
    slot = 10_000
    call = bench.chain.ledger.settle(bench.gateway.address, [claim], [payout], header, slot)
    bench.gas(bench.signer.address, call)
    word = payout_word(payout.node, payout.amount)
    return Inclusion(
        gateway=bench.gateway.address,
        slot=slot,
        payouts=(word,),
        subroots=(tree.root,),
        link=link,
        payout_index=0,
        top=tree.top,
        num_receipts=tree.num_leaves,
        receipt=receipt,
        cost=cost,
        receipt_index=0,
        receipt_proof=tuple(tree.proof(0)),
    )


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder, start_chain(Path(folder)) as rpc_url:
        bench = Bench(rpc_url, num_payers=10, num_nodes=6)
        figures: dict[str, Any] = {
            "register_gas": bench.gas_of_register,
            "open_session_gas": bench.gas_of_open,
            "close_session_gas": bench.gas(
                bench.payer.address, bench.chain.ledger.close_session(bench.open(new_account().address))
            ),
        }
        figures |= batches(bench) | vouchers(bench) | disputes(bench)
        record("settlement", figures, HONESTY)


if __name__ == "__main__":
    main()
