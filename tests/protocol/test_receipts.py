"""Receipts of one job hold together; each thing that can be wrong is named."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from declai.chain.messages import sign
from declai.protocol import wire
from declai.protocol.errors import InvalidReceipt
from declai.protocol.jobs import StageJob
from declai.protocol.options import GenerationOptions, Sampling
from declai.protocol.problems import Problem, ProblemKind
from declai.protocol.receipt_checks import SignedPlan, Transcript, verify_job_receipts
from declai.protocol.receipts import SignedReceipt
from tests.support.parties import DOMAIN, Party, make_jobs
from tests.support.stage_work import signed_receipts

PROMPT, OUTPUT = [5, 6, 7, 8], [40, 41, 42]
SAMPLING = Sampling(temperature=0.7, seed=2**63 + 1, logit_bias={3: 1.5})
NODES, GATEWAY = [Party() for _ in range(3)], Party()


def receipts_of(
    jobs: list[StageJob], tokens: list[int] = OUTPUT, *, salts: dict[int, int] | None = None
) -> list[SignedReceipt]:
    return signed_receipts(jobs, [node.signer for node in NODES], PROMPT, tokens, SAMPLING, salts=salts)


@pytest.fixture(scope="module")
def jobs() -> list[StageJob]:
    return make_jobs(GATEWAY, NODES, num_prompt_tokens=len(PROMPT), options=GenerationOptions(sampling=SAMPLING))


@pytest.fixture(scope="module")
def plan(jobs: list[StageJob]) -> SignedPlan:
    signers = {node.address: node.signer.address for node in NODES}
    return SignedPlan(DOMAIN, jobs[0].request, [j.assignment for j in jobs], signers, len(PROMPT))


def transcript(output: list[int] = OUTPUT, prompt: list[int] = PROMPT, sampling: Sampling = SAMPLING) -> Transcript:
    return Transcript(prompt, output, sampling)


def kinds(problems: list[Problem]) -> set[tuple[str, int]]:
    return {(str(p.kind), p.stage) for p in problems}


def test_honest_receipts_have_no_problem(jobs: list[StageJob], plan: SignedPlan) -> None:
    signed = receipts_of(jobs)
    assert verify_job_receipts(signed, plan, 3, transcript(), int(time.time())) == []
    assert verify_job_receipts(signed, plan, 3) == []
    one = signed[0].receipt
    assert one.cost == (4 * jobs[0].assignment.prompt_price + 3 * jobs[0].assignment.output_price) * 2 // 10**6


def test_a_receipt_survives_the_link_and_json(jobs: list[StageJob]) -> None:
    for job, signed in zip(jobs, receipts_of(jobs), strict=True):
        parts = [bytes(part) for part in wire.encode(signed.to_frame(job.job_id))]
        frame = wire.decode(parts)
        assert isinstance(frame, wire.Receipt)
        assert SignedReceipt.from_frame(frame) == signed
        assert SignedReceipt.model_validate_json(signed.model_dump_json()) == signed


def test_each_lie_is_named(jobs: list[StageJob], plan: SignedPlan) -> None:
    honest = receipts_of(jobs)

    def check(signed: list[SignedReceipt | None], *expected: tuple[str, int], tokens: int = 3) -> None:
        assert kinds(verify_job_receipts(signed, plan, tokens, transcript(), int(time.time()))) == set(expected)

    def resigned(stage: int, **changes: object) -> list[SignedReceipt | None]:
        receipt = honest[stage].receipt.model_copy(update=changes)
        signature = sign(receipt, DOMAIN, NODES[stage].signer)
        changed = SignedReceipt(receipt=receipt, signature=signature, records=honest[stage].records)
        return [changed if s == stage else honest[s] for s in range(3)]

    check([honest[0], None, honest[2]], ("missing", 1))
    check(honest[:2], ("missing", 2))
    check([honest[0], honest[1].model_copy(update={"signature": honest[0].signature}), honest[2]], ("wrong_signer", 1))
    check([honest[0], honest[1].model_copy(update={"signature": bytes(65)}), honest[2]], ("wrong_signer", 1))
    check(resigned(1, cost=honest[1].receipt.cost + 1), ("wrong_cost", 1))
    check(resigned(0, finished_at=int(time.time()) + 10**6), ("wrong_times", 0))
    check(resigned(0, started_at=int(time.time()) + 5), ("wrong_times", 0))
    check(resigned(2, assignment=bytes(32)), ("wrong_assignment", 2))
    check(resigned(1, inputs=bytes(32)), ("broken_chain", 1))
    check(resigned(2, outputs=bytes(32)), ("broken_chain", 2))
    check(receipts_of(jobs, salts={0: 9}), ("neighbours_differ", 1))
    check(receipts_of(jobs, salts={1: 9}), ("neighbours_differ", 2))
    short = receipts_of(jobs, OUTPUT[:2])
    assert ("counts_differ", 1) in kinds(verify_job_receipts([honest[0], short[1], honest[2]], plan, 3))
    cut = honest[1].model_copy(update={"records": honest[1].records[:-254]})
    check([honest[0], cut, honest[2]], ("bad_records", 1))


def test_the_answer_the_prompt_and_the_sampling_are_bound(jobs: list[StageJob], plan: SignedPlan) -> None:
    signed = receipts_of(jobs)
    for told, stages in [
        (transcript(prompt=[5, 6, 7, 9]), {0}),
        (transcript(output=[40, 41, 43]), {2}),
        (transcript(output=[40, 44, 42]), {0, 2}),
        (transcript(sampling=SAMPLING.model_copy(update={"seed": 1})), {2}),
    ]:
        problems = verify_job_receipts(signed, plan, 3, told)
        assert {p.stage for p in problems} == stages
        assert {p.kind for p in problems} <= {ProblemKind.WRONG_TOKENS, ProblemKind.BROKEN_CHAIN}


@pytest.mark.parametrize(
    ("change", "kind"), [({"shard": b"\1" * 32}, "wrong_shards"), ({"numeric_profile": 1}, "wrong_profile")]
)
def test_records_are_held_to_the_assignment(
    jobs: list[StageJob], plan: SignedPlan, change: dict[str, object], kind: str
) -> None:
    fields = {name: getattr(jobs[1], name) for name in StageJob.model_fields}
    other = StageJob(**fields | {"assignment": jobs[1].assignment.model_copy(update=change)})
    changed = [jobs[0], other, jobs[2]]
    expected = replace(plan, assignments=[job.assignment for job in changed])
    assert kinds(verify_job_receipts(receipts_of(changed), expected, 3, transcript())) == {(kind, 1)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.text(max_size=200), st.binary(min_size=65, max_size=65), st.integers(0, 2))
def test_a_frame_without_a_receipt_is_invalid_and_nothing_worse(text: str, signature: bytes, num_records: int) -> None:
    with pytest.raises(InvalidReceipt):
        SignedReceipt.from_frame(wire.Receipt(bytes(32), text, signature, bytes(254 * num_records)))
