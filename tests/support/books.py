"""Books with real entries: nodes and a gateway on chain, sessions, requests that were signed, served and receipted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import redis
from eth_account.signers.local import LocalAccount

from declai.api.credits.admission import Admission, Admitted, Asked
from declai.api.credits.reservations import Reservations
from declai.api.settlement.settle import Settlement
from declai.api.store.records import StoredStage
from declai.api.store.store import Store
from declai.chain.client import Chain
from declai.chain.contracts.ledger import SessionState
from declai.chain.contracts.nodes import Role
from declai.chain.index import EventIndex
from declai.chain.messages import Assignment, InferenceReceipt, InferenceRequest, digest, new_account, sign
from declai.chain.pricing import UNITS_PER_CREDIT, Tier, gateway_fee, stage_cost
from declai.chain.state import ChainState
from declai.devnet.chain_setup import fund
from declai.ipfs.store import BlockStore
from declai.protocol.batch_checks import LedgerFacts
from declai.protocol.commitments import StageCommitment
from declai.protocol.jobs import job_id
from declai.protocol.receipts import SignedReceipt
from tests.support.world import World

MODEL = "test/money"
LAYERS_PER_STAGE = 2
# Odd on purpose, so that rounding happens.
PROMPT_PRICE, OUTPUT_PRICE = UNITS_PER_CREDIT + 7, 3 * UNITS_PER_CREDIT + 1
FEE_BPS = 500


@dataclass
class Party:
    """An operator that is registered with a signer of its own."""

    operator: LocalAccount
    signer: LocalAccount

    @property
    def address(self) -> str:
        return str(self.operator.address)


@dataclass
class Market:
    """Contracts with a gateway, three nodes and a payer, and the key that the gateway's API keys spend with."""

    world: World
    gateway: Party
    nodes: list[Party]
    payer: LocalAccount
    session_account: LocalAccount = field(default_factory=new_account)

    @classmethod
    def open(cls, world: World, num_nodes: int = 3) -> Market:
        def party(role: Role) -> Party:
            signer = new_account()
            return Party(world.register(role, signer), signer)

        market = cls(world, party(Role.GATEWAY), [party(Role.WORKER) for _ in range(num_nodes)], world.rich())
        market.give_gas(market.gateway.signer)
        world.send(world.treasury, world.chain.models.publish(MODEL, "bafkmoney", num_nodes * LAYERS_PER_STAGE))
        world.deposit(market.payer, 10_000 * UNITS_PER_CREDIT)
        return market

    @property
    def chain(self) -> Chain:
        return self.world.chain

    def give_gas(self, account: LocalAccount) -> None:
        fund(self.chain, [account.address])

    def open_session(self, budget: int = 10 * UNITS_PER_CREDIT, key: LocalAccount | None = None) -> str:
        """A session of the payer's; its key is the gateway's unless given. Returns 0x-hex."""
        key = key or self.session_account
        session = self.world.open_session(self.payer, self.gateway.operator, key, budget)
        return "0x" + session.hex()

    def session(self, session: str) -> SessionState:
        return self.chain.ledger.session(bytes.fromhex(session[2:]))

    def balances(self) -> dict[str, int]:
        """Ledger balances of the gateway and the nodes."""
        parties = [self.gateway, *self.nodes]
        ledger = self.chain.ledger
        return {p.address: ledger.balance_of(p.address) + ledger.fees_of(p.address) for p in parties}

    def stages(
        self,
        message: InferenceRequest,
        num_prompt_tokens: int,
        num_output_tokens: int,
        nodes: list[Party] | None = None,
    ) -> list[StoredStage]:
        """What every node signed for a request: consistent commitments, prices and counts."""
        nodes = self.nodes if nodes is None else nodes
        return [self._stage(message, stage, nodes, num_prompt_tokens, num_output_tokens) for stage in range(len(nodes))]

    def _stage(
        self, message: InferenceRequest, stage: int, nodes: list[Party], num_prompt: int, num_output: int
    ) -> StoredStage:
        domain, node = self.chain.domain, nodes[stage]
        request = digest(message, domain)
        assignment = Assignment(
            request=request,
            stage=stage,
            first_layer=stage * LAYERS_PER_STAGE,
            end_layer=(stage + 1) * LAYERS_PER_STAGE,
            numeric_profile=0,
            shard=bytes(32),
            node=node.address,
            prompt_price=PROMPT_PRICE,
            output_price=OUTPUT_PRICE,
            attempt=0,
            deadline=message.deadline,
        )
        num_positions = num_prompt + num_output - 1
        commitment = StageCommitment(job_id(request, 0), digest(assignment, domain), stage, "fp32", bytes(32))
        # Link k carries bytes that depend on k alone, so neighbours agree.
        commitment.received(0, bytes([stage]) * 8 * num_positions, num_positions)
        commitment.sent(0, bytes([stage + 1]) * 8 * num_positions, num_positions)
        sealed = commitment.seal(num_positions)
        receipt = InferenceReceipt(
            assignment=digest(assignment, domain),
            node=node.address,
            prompt_tokens=num_prompt,
            output_tokens=num_output,
            inputs=sealed.inputs,
            outputs=sealed.outputs,
            cost=price_of_stage(num_prompt, num_output, Tier(message.tier)),
            started_at=int(time.time()),
            finished_at=int(time.time()),
        )
        signed = SignedReceipt(receipt=receipt, signature=sign(receipt, domain, node.signer), records=sealed.records)
        return StoredStage(stage, assignment, sign(assignment, domain, self.gateway.signer), signed)


def price_of_stage(num_prompt_tokens: int, num_output_tokens: int, tier: Tier = Tier.RESEARCH) -> int:
    return stage_cost(
        num_prompt_tokens=num_prompt_tokens,
        num_output_tokens=num_output_tokens,
        prompt_price=PROMPT_PRICE,
        output_price=OUTPUT_PRICE,
        num_layers=LAYERS_PER_STAGE,
        tier=tier,
    )


class Books:
    """One gateway's money half over a market: store, reservations, admission, settlement."""

    def __init__(self, market: Market, folder: Path, store_url: str, redis_url: str, **settlement: int | float) -> None:
        self.market = market
        self.store = Store(store_url)
        self.client = redis.Redis.from_url(redis_url)
        self.reservations = Reservations(self.client, self.store, market.gateway.address)
        self.index = EventIndex(folder / "index.db", market.chain)
        self.blocks = BlockStore(folder / "blocks")
        self.admission = Admission(
            self.store,
            self.reservations,
            market.chain,
            self.index,
            gateway=market.gateway.address,
            session_account=market.session_account,
            max_unacknowledged=16,
        )
        limits = {"depth": 1, "max_claims": 200, "max_receipts": 20_000} | settlement
        self.settlement = Settlement(
            self.store,
            self.blocks,
            market.chain,
            market.gateway.signer,
            gateway=market.gateway.address,
            lock_path=folder / "settlement.lock",
            **limits,  # type: ignore[arg-type]
        )

    def close(self) -> None:
        self.index.close()
        self.client.close()
        self.store.close()

    def facts(self, state: ChainState) -> LedgerFacts:
        """What the chain says of settlements, with `state` from an index."""
        return LedgerFacts(self.market.chain.domain, self.market.chain.ledger.max_fee_bps(), state)

    def admit(self, session: str, max_tokens: int = 8, max_cost: int = UNITS_PER_CREDIT) -> Admitted:
        return self.admission.admit_keyed(session, Asked(MODEL, {}, max_tokens, Tier.RESEARCH, max_cost))

    def finish(self, admitted: Admitted, num_prompt_tokens: int = 5, num_output_tokens: int = 3) -> int:
        """End a request with receipts of all nodes; returns its cost."""
        stages = self.market.stages(admitted.message, num_prompt_tokens, num_output_tokens)
        return self.admission.finish(
            admitted,
            finish_reason="stop",
            num_prompt_tokens=num_prompt_tokens,
            num_output_tokens=num_output_tokens,
            fee=gateway_fee([stage.cost for stage in stages], FEE_BPS),
            stages_done=stages,
        )

    def serve(self, session: str, num_prompt_tokens: int = 5, num_output_tokens: int = 3) -> tuple[str, int]:
        """Admit and finish a request; returns its digest and cost."""
        admitted = self.admit(session)
        return admitted.request, self.finish(admitted, num_prompt_tokens, num_output_tokens)
