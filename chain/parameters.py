"""What a deployment can be given, and how it becomes constructor arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from declai.chain.fields import Address
from declai.chain.pricing import UNITS_PER_CREDIT

HOUR = 3600
DAY_S = 24 * HOUR


class Parameters(BaseModel):
    """What the contracts' constructors take; the contracts check the same bounds. Amounts in base units."""

    model_config = ConfigDict(frozen=True)

    treasury: Address
    stake_thaw_s: int = Field(default=7 * DAY_S, ge=1)
    lock_multiple: int = Field(default=10, ge=1)
    half_weight: int = Field(default=100 * UNITS_PER_CREDIT, gt=0)
    decay_epochs: int = Field(default=30, ge=1)
    min_worker_stake: int = Field(default=100 * UNITS_PER_CREDIT, gt=0, lt=2**128)
    min_gateway_stake: int = Field(default=1000 * UNITS_PER_CREDIT, gt=0, lt=2**128)
    min_auditor_stake: int = Field(default=100 * UNITS_PER_CREDIT, gt=0, lt=2**128)
    session_thaw_s: int = Field(default=1 * DAY_S, ge=1)
    epoch_length_s: int = Field(default=2 * DAY_S, ge=1)
    batch_retention_s: int = Field(default=4 * DAY_S, ge=1)
    claim_delay_s: int = Field(default=3600, ge=0)
    claim_period_s: int = Field(default=1 * DAY_S, ge=1)
    claim_window_s: int = Field(default=DAY_S // 2, ge=1)
    claim_bond: int = Field(default=1 * UNITS_PER_CREDIT, gt=0)
    max_fee_bps: int = Field(default=2000, ge=0, le=10_000)
    challenge_period_s: int = Field(default=3 * DAY_S, ge=1)
    answer_period_s: int = Field(default=DAY_S // 2, ge=1)
    evidence_period_s: int = Field(default=7 * DAY_S, ge=1)
    jail_period_s: int = Field(default=30 * DAY_S, ge=1)
    challenge_bond: int = Field(default=1 * UNITS_PER_CREDIT, gt=0)
    equivocation_bps: int = Field(default=5000, gt=0, le=10_000)
    reward_bps: int = Field(default=2000, ge=0, le=5000)
    fine_bps: int = Field(default=10_000, ge=10_000, le=50_000)
    dispute_period_s: int = Field(default=HOUR, ge=1)
    opening_period_s: int = Field(default=6 * HOUR, ge=1)
    draw_period_s: int = Field(default=HOUR, ge=1)
    commit_period_s: int = Field(default=12 * HOUR, ge=1)
    reveal_period_s: int = Field(default=6 * HOUR, ge=1)
    appeal_period_s: int = Field(default=12 * HOUR, ge=1)
    cap_bps: int = Field(default=5000, gt=0, le=10_000)
    dispute_bond: int = Field(default=25 * UNITS_PER_CREDIT, gt=0)
    juror_fee: int = Field(default=UNITS_PER_CREDIT // 2, gt=0)
    juror_penalty: int = Field(default=2 * UNITS_PER_CREDIT, gt=0)
    draw_delay_blocks: int = Field(default=4, ge=1, le=32)
    jury_size: int = Field(default=5, ge=3, le=11)
    min_jury: int = Field(default=3, ge=3, le=11)
    max_rounds: int = Field(default=3, ge=1, le=3)
    warning_share: int = Field(default=500_000, ge=1, le=1_000_000, description="millionths of the slashing threshold")
    tolerance: int = Field(default=50_000, ge=1, le=500_000, description="millionths of the slashing threshold")

    @model_validator(mode="after")
    def _stakes_outlast_claims(self) -> Self:
        if self.stake_thaw_s <= self.session_thaw_s + self.claim_window_s:
            raise ValueError(
                f"stakes must thaw longer ({self.stake_thaw_s} s) than sessions and the claims on them "
                f"({self.session_thaw_s} + {self.claim_window_s} s)"
            )
        return self

    def arguments(self, at: Mapping[str, str]) -> dict[str, tuple[Any, ...]]:
        """Constructor arguments by contract, in the order of deployment; `at` are the contracts' addresses to be."""
        return {
            "CreditToken": (self.treasury,),
            "NodeRegistry": (at["CreditToken"], at["InferenceLedger"], at["DisputeCourt"], self._registry()),
            "ModelRegistry": (),
            "InferenceLedger": (at["CreditToken"], at["NodeRegistry"], self._ledger()),
            "DisputeCourt": (at["InferenceLedger"], self.treasury, self._court(), self._disputes(), self._juries()),
        }

    def _registry(self) -> tuple[int, ...]:
        stakes = (self.min_worker_stake, self.min_gateway_stake, self.min_auditor_stake)
        return (self.stake_thaw_s, self.lock_multiple, self.half_weight, self.decay_epochs, *stakes)

    def _ledger(self) -> tuple[int, ...]:
        claims = (self.claim_delay_s, self.claim_period_s, self.claim_window_s, self.claim_bond)
        return (self.session_thaw_s, self.epoch_length_s, self.batch_retention_s, *claims, self.max_fee_bps)

    def _court(self) -> tuple[int, ...]:
        periods = (self.challenge_period_s, self.answer_period_s, self.evidence_period_s, self.jail_period_s)
        return (*periods, self.challenge_bond, self.equivocation_bps, self.reward_bps, self.fine_bps)

    def _disputes(self) -> tuple[int, ...]:
        terms = (self.cap_bps, self.dispute_bond, self.juror_fee, self.juror_penalty)
        return (self.dispute_period_s, self.opening_period_s, *terms)

    def _juries(self) -> tuple[int, ...]:
        periods = (self.draw_period_s, self.commit_period_s, self.reveal_period_s, self.appeal_period_s)
        sizes = (self.draw_delay_blocks, self.jury_size, self.min_jury, self.max_rounds)
        return (*periods, *sizes, self.warning_share, self.tolerance)
