"""Parties and jobs for the tests of the network half: keys, signed requests, assignments, one job per stage."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import zmq
import zmq.utils.z85 as z85
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from declai.chain.messages import Assignment, Domain, InferenceRequest, digest, new_account, sign
from declai.protocol.jobs import StageJob
from declai.protocol.options import GenerationOptions
from declai.protocol.peers import Peer
from declai.protocol.ring import new_ring

DOMAIN = Domain(chain_id=31337, ledger="0x" + "11" * 20)
MODEL_NAME, MANIFEST = "test/model", "bafytest"
PROMPT_PRICE, OUTPUT_PRICE = 10**15, 3 * 10**15


def curve_pair() -> tuple[bytes, bytes]:
    public, secret = zmq.curve_keypair()
    return z85.decode(public), z85.decode(secret)


@dataclass
class Party:
    """A node or a gateway: operator and signer accounts, link key pair, where its link listens."""

    operator: LocalAccount = field(default_factory=new_account)
    signer: LocalAccount = field(default_factory=new_account)
    link: tuple[bytes, bytes] = field(default_factory=curve_pair)
    endpoint: str = "tcp://127.0.0.1:1"

    @property
    def address(self) -> str:
        return str(self.operator.address)

    @property
    def peer(self) -> Peer:
        return Peer(address=self.address, link_key=self.link[0], endpoint=self.endpoint)


def layer_cuts(num_stages: int, layers_per_stage: int = 2) -> list[tuple[int, int]]:
    return [(k * layers_per_stage, (k + 1) * layers_per_stage) for k in range(num_stages)]


def make_jobs(
    gateway: Party,
    nodes: Sequence[Party],
    *,
    num_prompt_tokens: int = 3,
    max_tokens: int = 8,
    options: GenerationOptions | None = None,
    attempt: int = 0,
    tier: int = 0,
    lifetime_s: int = 3000,  # parametrised jobs are made when the tests are collected
    salt: bytes = b"",
    session: LocalAccount | None = None,
    layers: Sequence[tuple[int, int]] | None = None,
    numeric_profile: int = 0,
    domain: Domain = DOMAIN,
    request: InferenceRequest | None = None,
    **extra: object,
) -> list[StageJob]:
    """One job per stage, every signature in place; `request` in place of one made up."""
    deadline = int(time.time()) + lifetime_s
    session = session or SESSION
    request = request or InferenceRequest(
        session=keccak(text="session"),
        nonce=1,
        model=keccak(text=MODEL_NAME),
        body=hashlib.sha256(salt).digest(),
        max_tokens=max_tokens,
        tier=tier,
        max_cost=10**20,
        acked_below=1,
        spent=0,
        deadline=deadline,
    )
    jobs = []
    cuts = layers or layer_cuts(len(nodes))
    ring = new_ring(gateway.peer, [node.peer for node in nodes], attempt)
    for stage, node in enumerate(nodes):
        last = stage == len(nodes) - 1
        assignment = Assignment(
            request=digest(request, domain),
            stage=stage,
            first_layer=cuts[stage][0],
            end_layer=cuts[stage][1],
            numeric_profile=numeric_profile,
            shard=bytes(32),
            node=node.address,
            prompt_price=PROMPT_PRICE,
            output_price=OUTPUT_PRICE,
            attempt=attempt,
            deadline=deadline,
        )
        jobs.append(
            StageJob(
                chain_id=domain.chain_id,
                ledger=domain.ledger,
                request=request,
                request_signature=sign(request, domain, session),
                assignment=assignment,
                assignment_signature=sign(assignment, domain, gateway.signer),
                model_name=MODEL_NAME,
                manifest_cid=MANIFEST,
                num_stages=len(nodes),
                attempt=attempt,
                gateway=gateway.peer,
                ring=ring.view(stage),
                num_prompt_tokens=num_prompt_tokens,
                max_tokens=max_tokens,
                options=(options or GenerationOptions()) if last else None,
                **(extra if last else {}),
            )
        )
    return jobs


SESSION = new_account()


class FakeRegistry:
    """A registry that knows the parties it was told of."""

    def __init__(self, gateways: Sequence[Party], nodes: Sequence[Party]) -> None:
        self.gateways = {g.signer.address: g.address for g in gateways}
        self.parties = {party.link[0]: party for party in [*gateways, *nodes]}
        self.holders = {party.link[0]: party.address for party in [*gateways, *nodes]}
        self.session: str | None = SESSION.address

    def add(self, node: Party) -> None:
        self.parties[node.link[0]] = node
        self.holders[node.link[0]] = node.address

    def gateway_of(self, signer: str) -> str | None:
        return self.gateways.get(signer)

    def holder_of(self, link_key: bytes) -> str | None:
        return self.holders.get(link_key)

    def holder_at(self, link_key: bytes, endpoint: str) -> str | None:
        party = self.parties.get(link_key)
        return self.holder_of(link_key) if party is not None and party.endpoint == endpoint else None

    def session_key(self, session: bytes, gateway: str) -> str | None:
        return self.session
