"""Receipts checked alone, against the plan, and against each other: one rule for gateway, payer and auditor."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from declai.chain.messages import Assignment, Domain, InferenceRequest, digest, signed_by
from declai.chain.pricing import Tier
from declai.protocol import commitments
from declai.protocol.commitments import ChunkRecord
from declai.protocol.errors import CommitmentError
from declai.protocol.jobs import job_id
from declai.protocol.options import Sampling
from declai.protocol.problems import Problem, ProblemKind
from declai.protocol.receipts import SignedReceipt, cost_of

MAX_CLOCK_SKEW_S = 60


@dataclass(frozen=True)
class Transcript:
    """The tokens of a job as the gateway or the requester saw them, for those who may see them."""

    prompt_token_ids: Sequence[int]
    output_token_ids: Sequence[int]
    sampling: Sampling


@dataclass(frozen=True)
class SignedPlan:
    """What was agreed before the work: the request, one assignment per stage in order, and each node's signer.

    `from_positions`: for each stage, where what its node sent begins: later than 0 where it took another's place.
    """

    domain: Domain
    request: InferenceRequest
    assignments: Sequence[Assignment]
    signers: Mapping[str, str]
    num_prompt_tokens: int
    from_positions: Sequence[int] = ()

    @property
    def attempt(self) -> int:
        """The attempt that names the job: that of the nodes that have been in it from the beginning."""
        return min(assignment.attempt for assignment in self.assignments)


def verify_job_receipts(
    receipts: Sequence[SignedReceipt | None],
    plan: SignedPlan,
    num_output_tokens: int,
    transcript: Transcript | None = None,
    now: int | None = None,
) -> list[Problem]:
    """Check all stages' receipts of one job (in stage order, None where one is missing) alone and against each other.

    Without a transcript the last stage's head over token ids cannot be recomputed and is left out.
    """
    found: list[Problem] = []
    records: list[list[ChunkRecord]] = []
    for stage in range(len(plan.assignments)):
        signed = receipts[stage] if stage < len(receipts) else None
        if signed is None:
            found.append(Problem(ProblemKind.MISSING, stage, "no receipt"))
            records.append([])
            continue
        problems, stage_records = _check_stage(signed, plan, stage, num_output_tokens, transcript)
        found += problems
        records.append(stage_records)
        if now is not None and signed.receipt.finished_at > now + MAX_CLOCK_SKEW_S:
            found.append(Problem(ProblemKind.WRONG_TIMES, stage, "finished in the future"))
    for stage, (upstream, downstream) in enumerate(itertools.pairwise(records)):
        from_position = plan.from_positions[stage] if plan.from_positions else 0
        if upstream and downstream and not commitments.neighbours_match(upstream, downstream, from_position):
            text = f"stage {stage} sent other bytes than stage {stage + 1} received"
            found.append(Problem(ProblemKind.NEIGHBOURS_DIFFER, stage + 1, text))
    return found


def _check_stage(
    signed: SignedReceipt, plan: SignedPlan, stage: int, num_output_tokens: int, transcript: Transcript | None
) -> tuple[list[Problem], list[ChunkRecord]]:
    receipt, assignment = signed.receipt, plan.assignments[stage]
    found: list[Problem] = []

    def problem(kind: ProblemKind, text: str) -> None:
        found.append(Problem(kind, stage, text))

    assignment_digest = digest(assignment, plan.domain)
    if receipt.assignment != assignment_digest or receipt.node != assignment.node:
        problem(ProblemKind.WRONG_ASSIGNMENT, "the receipt is for another assignment or node")
    if not signed_by(receipt, plan.domain, signed.signature, plan.signers.get(assignment.node)):
        problem(ProblemKind.WRONG_SIGNER, f"not signed by the signer of {assignment.node}")
    counts = (receipt.prompt_tokens, receipt.output_tokens)
    if counts != (plan.num_prompt_tokens, num_output_tokens):
        problem(ProblemKind.COUNTS_DIFFER, f"{counts} tokens, not {(plan.num_prompt_tokens, num_output_tokens)}")
    # A request of an unknown tier has no price. The ledger takes none, but a batch file may show one.
    if plan.request.tier not in tuple(Tier) or receipt.cost != cost_of(assignment, plan.request, *counts):
        problem(ProblemKind.WRONG_COST, f"cost {receipt.cost} is not the price of these tokens")
    if not receipt.started_at <= receipt.finished_at <= assignment.deadline + MAX_CLOCK_SKEW_S:
        problem(ProblemKind.WRONG_TIMES, f"{receipt.started_at} to {receipt.finished_at}")
    try:
        records = _check_records(signed, plan, stage, assignment_digest, transcript)
    except _RecordProblem as error:
        problem(error.kind, str(error))
        return found, []
    except CommitmentError as error:
        problem(ProblemKind.BAD_RECORDS, str(error))
        return found, []
    return found, records


class _RecordProblem(Exception):
    def __init__(self, kind: ProblemKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def _check_records(
    signed: SignedReceipt, plan: SignedPlan, stage: int, assignment_digest: bytes, transcript: Transcript | None
) -> list[ChunkRecord]:
    receipt = signed.receipt
    job = job_id(digest(plan.request, plan.domain), plan.attempt)
    records = commitments.parse_records(signed.records, job, stage, receipt.prompt_tokens + receipt.output_tokens - 1)
    is_last = stage == len(plan.assignments) - 1
    output = None
    if is_last and transcript is not None:
        sampling = transcript.sampling
        output = commitments.output_record(transcript.output_token_ids, sampling.seed, sampling.canonical())
    inputs, outputs = commitments.heads(records, job, assignment_digest, output)
    if inputs != receipt.inputs or (outputs != receipt.outputs and (not is_last or transcript is not None)):
        raise _RecordProblem(ProblemKind.BROKEN_CHAIN, "the records do not give the signed heads")
    if records[0].shard_root != plan.assignments[stage].shard:
        raise _RecordProblem(ProblemKind.WRONG_SHARDS, "the records name other weights than the assignment")
    if records[0].numeric_profile != plan.assignments[stage].numeric_profile:
        raise _RecordProblem(ProblemKind.WRONG_PROFILE, "the records name another number format than the assignment")
    if transcript is not None:
        _check_tokens(records, transcript, stage == 0, is_last)
    return records


def _check_tokens(records: list[ChunkRecord], transcript: Transcript, is_first: bool, is_last: bool) -> None:
    fed = [*transcript.prompt_token_ids, *transcript.output_token_ids[:-1]]
    if is_first and [r.in_root for r in records] != commitments.token_roots(fed):
        raise _RecordProblem(ProblemKind.WRONG_TOKENS, "other token ids went in than the prompt and the answer")
    made = [None] * (len(transcript.prompt_token_ids) - 1) + list(transcript.output_token_ids)
    if is_last and [r.out_root for r in records] != commitments.token_roots(made):
        raise _RecordProblem(ProblemKind.WRONG_TOKENS, "other token ids came out than the answer")
