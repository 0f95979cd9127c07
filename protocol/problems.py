"""What can be wrong with a job's papers: stable names for programs, a sentence for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ProblemKind(StrEnum):
    """Of the plan, of one stage's receipt, of two neighbours' receipts, of what the payer is charged."""

    NOT_NEXT = "not_next"
    INCOMPLETE = "incomplete"
    WRONG_GATEWAY = "wrong_gateway"
    ABOVE_OFFER = "above_offer"

    MISSING = "missing"
    WRONG_ASSIGNMENT = "wrong_assignment"
    WRONG_SIGNER = "wrong_signer"
    COUNTS_DIFFER = "counts_differ"
    WRONG_COST = "wrong_cost"
    WRONG_TIMES = "wrong_times"
    BAD_RECORDS = "bad_records"
    BROKEN_CHAIN = "broken_chain"
    WRONG_TOKENS = "wrong_tokens"
    WRONG_SHARDS = "wrong_shards"
    WRONG_PROFILE = "wrong_profile"

    NEIGHBOURS_DIFFER = "neighbours_differ"

    WRONG_CHARGE = "wrong_charge"
    ABOVE_MAX_FEE = "above_max_fee"
    ABOVE_CAP = "above_cap"


PLAN_PROBLEMS = frozenset(
    {ProblemKind.NOT_NEXT, ProblemKind.INCOMPLETE, ProblemKind.WRONG_GATEWAY, ProblemKind.ABOVE_OFFER}
)
CHARGE_PROBLEMS = frozenset({ProblemKind.WRONG_CHARGE, ProblemKind.ABOVE_MAX_FEE, ProblemKind.ABOVE_CAP})


@dataclass(frozen=True)
class Problem:
    """One thing that does not hold, and at which stage; None: of the job as a whole."""

    kind: ProblemKind
    stage: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.stage is None else f"stage {self.stage}: {self.kind}: {self.text}"
