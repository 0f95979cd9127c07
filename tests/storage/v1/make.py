"""Write the databases beside this file, as version 1 of the stores did. They are kept: this was run once.

It runs with the code of commit 0a6d093 (release 0.1.0), which has these modules, and with nothing of today's:

    git worktree add --detach ../v1 0a6d093
    cp tests/storage/v1/make.py ../v1/make_v1.py
    PYTHONPATH=../v1 python ../v1/make_v1.py tests/storage/v1 [postgresql+psycopg://...]

With the URL of an empty PostgreSQL database it fills that, too; gateway.sql is `pg_dump --inserts --no-owner` of it,
without comments and settings.
"""

from __future__ import annotations

import itertools
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from eth_account import Account
from worker.jobs import Grammar, Peer, Sampling, StageJob
from worker.receipts import SignedReceipt, acceptance_of
from worker.store import NodeStore

from api.store.records import StoredStage
from api.store.store import Store
from chain.messages import Assignment, Domain, InferenceReceipt, InferenceRequest, digest, sign

DOMAIN = Domain(chain_id=31337, ledger="0x" + "11" * 20)
PAYER, GATEWAY, NODE, OTHER = (Account.from_key(bytes([number]) * 32) for number in range(1, 5))
DEADLINE = 4_000_000_000
SESSIONS = [sha256(b"session %d" % number).digest() for number in range(3)]


def request_of(session: bytes, nonce: int, **changes: Any) -> InferenceRequest:
    values = {
        "session": session,
        "nonce": nonce,
        "model": sha256(b"model").digest(),
        "body": sha256(b"body %d" % nonce).digest(),
        "max_tokens": 100 + nonce % 7,
        "tier": nonce % 3,
        "max_cost": 10**18 + nonce % 1000,
        "acked_below": min(nonce, 1),
        "spent": 10**15 * min(nonce, 1),
        "deadline": DEADLINE,
    }
    return InferenceRequest(**(values | changes))


def stage_of(request: InferenceRequest, stage: int, num_stages: int, attempt: int = 0) -> StoredStage:
    """What a stage was to do, and its receipt with `num_stages` chunk records of noise."""
    assignment = Assignment(
        request=digest(request, DOMAIN),
        stage=stage,
        first_layer=2 * stage,
        end_layer=2 * stage + 2,
        numeric_profile=stage % 3,
        shard=sha256(b"shard %d" % stage).digest(),
        node=NODE.address,
        prompt_price=10**14 + stage,
        output_price=3 * 10**14 + stage,
        attempt=attempt,
        deadline=request.deadline,
    )
    receipt = InferenceReceipt(
        assignment=digest(assignment, DOMAIN),
        node=NODE.address,
        prompt_tokens=5,
        output_tokens=3 + stage,
        inputs=sha256(b"inputs %d" % stage).digest(),
        outputs=sha256(b"outputs %d" % stage).digest(),
        cost=10**15 + stage,
        started_at=1_700_000_000,
        finished_at=1_700_000_001 + stage,
    )
    records = b"".join(sha256(b"%d" % number).digest() * 8 for number in range(num_stages))[: 254 * num_stages]
    signed = SignedReceipt(receipt=receipt, signature=sign(receipt, DOMAIN, NODE), records=records)
    return StoredStage(stage, assignment, sign(assignment, DOMAIN, GATEWAY), signed)


class Gateway:
    """A gateway's store with rows in every state."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.nonces = itertools.count()

    def begin(self, session: bytes, nonce: int | None = None, **changes: Any) -> tuple[str, InferenceRequest]:
        message = request_of(session, next(self.nonces) if nonce is None else nonce, **changes)
        name = "0x" + digest(message, DOMAIN).hex()
        self.store.begin_request(name, message, sign(message, DOMAIN, PAYER))
        return name, message

    def finish(self, session: bytes, num_stages: int = 3, reason: str = "stop", fee: int = 10**13 + 7) -> str:
        name, message = self.begin(session)
        stages = [stage_of(message, stage, num_stages) for stage in range(num_stages)]
        self.store.finish_request(
            name,
            finish_reason=reason,
            num_prompt_tokens=5,
            num_output_tokens=3,
            fee=fee,
            stages_done=stages,
        )
        return name

    def fill(self) -> None:
        store, (first, second, third) = self.store, SESSIONS
        settled = [self.finish(first), self.finish(first, num_stages=1, reason="length")]
        batch = store.plan_batch(sha256(b"root 1").digest(), "bafkfirst", b"call data 1", settled)
        store.set_transactions(batch, [b"raw 1", b"raw 1, dearer"])
        store.confirm_batch(batch, 12)
        sent = store.plan_batch(sha256(b"root 2").digest(), "bafksecond", b"", [self.finish(second)])
        store.set_transactions(sent, [b"raw 2"])
        store.plan_batch(sha256(b"root 3").digest(), "bafkthird", b"\0\xff", [self.finish(third, reason="cancelled")])
        name, _ = self.begin(first)
        store.fail_request(name, "node 0xd0 sent no receipt: die Stufe fiel aus – “gone” " + "x" * 600)
        self.finish(first)  # waits for a batch
        self.finish(first, num_stages=0, fee=0)  # costs nothing
        self.begin(first)  # runs
        self.begin(second, max_cost=2**128 - 1)  # runs
        self.finish(third)
        store.exclude_session("0x" + third.hex())
        self.begin(sha256(b"wide").digest(), nonce=2**63 - 1)
        assert store.spent_below("0x" + second.hex(), 3)[1] == 0
        session = "0x" + first.hex()
        store.add_api_key("a" * 64, session, PAYER.address, time.time() + 10**9)
        store.add_api_key("b" * 64, session, PAYER.address, 1_700_000_000.5)
        store.add_api_key("c" * 64, "0x" + second.hex(), PAYER.address, time.time() + 10**9)
        store.revoke_api_keys("0x" + second.hex())
        store.add_signin_nonce("a nonce", time.time() + 10**9)
        store.close()


def peer(number: int, relay: bytes | None = None) -> Peer:
    account = Account.from_key(bytes([100 + number]) * 32)
    return Peer(
        address=account.address, link_key=bytes([number]) * 32, endpoint=f"tcp://10.0.0.{number}:9", relay=relay
    )


def job_of(nonce: int, stage: int, num_stages: int, attempt: int = 0, **more: Any) -> tuple[StageJob, SignedReceipt]:
    request = request_of(SESSIONS[nonce % 2], nonce)
    done = stage_of(request, stage, num_stages, attempt)
    gateway = peer(1)
    neighbours = {} if num_stages == 1 else {"upstream": peer(2, relay=gateway.link_key), "downstream": peer(3)}
    if "upstream" in neighbours:
        neighbours["upstream"] = neighbours["upstream"].model_copy(update={"endpoint": gateway.endpoint})
    last = {"sampling": Sampling()} if stage == num_stages - 1 else {}
    job = StageJob(
        chain_id=DOMAIN.chain_id,
        ledger=DOMAIN.ledger,
        request=request,
        request_signature=sign(request, DOMAIN, PAYER),
        assignment=done.assignment,
        assignment_signature=done.assignment_signature,
        model_name="test/modèle",
        manifest_cid="bafkmanifest",
        num_stages=num_stages,
        attempt=attempt,
        gateway=gateway,
        num_prompt_tokens=5,
        max_tokens=100,
        **(neighbours | last | more),
    )
    return job, done.receipt


def fill_node(path: Path) -> None:
    """A node's store with receipts in every state. Job 6 is as nodes wrote it before gateways signed acceptances."""
    store = NodeStore(path)
    picky = Sampling(temperature=0.7, seed=2**64 - 1, logit_bias={7: -1.5}, grammar=Grammar(kind="regex", text="a+"))
    penalised = Sampling(temperature=1.0, repetition_penalty=1.1)
    jobs = [
        job_of(0, 0, 1),
        job_of(1, 0, 3, prompt_format_out="int8"),
        job_of(2, 1, 3, attempt=2, prompt_format_in="int8", prompt_format_out="float16"),
        job_of(3, 2, 3, sampling=picky, stop=("ende", "\n"), eos_token_ids=(2, 3), logprobs=True, top_logprobs=5),
        job_of(4, 2, 3, sampling=penalised, prompt_token_ids=(1, 2, 3, 4, 5), ignore_eos=True),
        job_of(5, 0, 1),
        job_of(6, 0, 1),
        job_of(7, 0, 1),
    ]
    for job, receipt in jobs:
        assert store.take(job.job_id, DEADLINE)
        store.save(job, receipt)
    store.take(sha256(b"taken, no receipt").digest(), DEADLINE)
    for job, receipt in jobs[:4]:
        store.accept(job.job_id, sign(acceptance_of(receipt.receipt, DOMAIN), DOMAIN, GATEWAY))
    ids = [job.job_id for job, _ in jobs]
    store.note_batch(sha256(b"root 1").digest(), [ids[0]], [ids[1], ids[4]])
    store.note_batch(sha256(b"root 2").digest(), [ids[4]], [])
    store.note_batch(sha256(b"root 3").digest(), [], [])
    store.close_receipt(ids[5])
    store._db.execute("UPDATE receipts SET acknowledged = 1 WHERE job = ?", (ids[6],))
    store.close()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name in ("gateway.db", "node.db"):
        (folder / name).unlink(missing_ok=True)
    Gateway(f"sqlite:///{folder / 'gateway.db'}").fill()
    fill_node(folder / "node.db")
    for url in sys.argv[2:]:
        Gateway(url).fill()
