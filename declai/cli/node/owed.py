"""How `declai node claim` tells what is owed to a node, and what came of the steps that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import click

from declai.chain.fields import to_hex
from declai.chain.pricing import format_credits
from declai.chain.state import SettledBatch
from declai.cli.output import emit, table
from declai.contributor.claims import Owed, Status
from declai.contributor.operator import local_time

REQUEST_DIGITS = 10  # shown of a request's hash; --request takes as few


class ClaimOutcome(StrEnum):
    """What came of a step."""

    DONE = "done"
    OVERTAKEN = "overtaken"  # by another call, by somebody else, or by time
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """A step's end; without a `result` none was taken. `transaction` is a hash."""

    result: ClaimOutcome | None = None
    transaction: bytes | None = None
    error: str | None = None


@dataclass(frozen=True)
class Report:
    """One call of the command. `court` is what lies at the court for the node's operator, in base units."""

    operator: str
    shown: Sequence[tuple[Owed, Outcome]]
    collected: int
    court: int
    unreadable: Sequence[SettledBatch]

    def print(self, as_json: bool) -> None:
        data = {
            "operator": self.operator,
            "owed": [_row(owed, outcome) for owed, outcome in self.shown],
            "collected_units": str(self.collected),
            "court_units": str(self.court),
            "unread_batches": [to_hex(batch.root) for batch in self.unreadable],
        }
        emit(data, as_json, self._render)

    def _render(self) -> None:
        rows = [_cells(owed, outcome) for owed, outcome in self.shown]
        table(["request", "credits", "status", "", "step", "bond"], rows, "Nothing is owed.")
        if rows:
            total = format_credits(sum(owed.cost for owed, _ in self.shown))
            click.echo(f"{total} credits in {_count(len(rows), 'receipt')} that no batch paid")
        if self.collected:
            click.echo(f"{format_credits(self.collected)} credits came from the court into the wallet")
        if self.court:
            click.echo(
                f"{format_credits(self.court)} credits lie at the court for {self.operator}: claim with its wallet"
            )
        if self.unreadable:
            text = f"{_count(len(self.unreadable), 'batch', 'batches')} cannot be read now: try again later"
            click.secho(text, fg="yellow", err=True)
        for owed, outcome in self.shown:
            if outcome.error:
                click.secho(f"{_name(owed)} {_step(owed)}: {outcome.error}", fg="yellow", err=True)


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _row(owed: Owed, outcome: Outcome) -> dict[str, Any]:
    job = owed.kept.job
    return {
        "request": to_hex(job.request_digest),
        "receipt": to_hex(owed.receipt),
        "assignment": to_hex(job.assignment_digest),
        "session": to_hex(job.request.session),
        "gateway": job.gateway.address,
        "cost_units": str(owed.cost),
        "accepted": owed.kept.acceptance is not None,
        "status": owed.status,
        "at": owed.at,
        "step": owed.step,
        "bond_units": str(owed.bond),
        "result": outcome.result,
        "transaction": outcome.transaction,
        "error": outcome.error,
    }


def _cells(owed: Owed, outcome: Outcome) -> tuple[object, ...]:
    ends = owed.status in (Status.CLAIMABLE, Status.CHALLENGEABLE)
    when = f"{'until' if ends else 'from'} {local_time(owed.at)[5:-3]}" if owed.at else ""
    step = _step(owed) + (f": {outcome.result}" if outcome.result else "")
    return (
        _name(owed),
        format_credits(owed.cost),
        owed.status,
        when,
        step,
        format_credits(owed.bond) if owed.bond else "",
    )


def _name(owed: Owed) -> str:
    return to_hex(owed.kept.job.request_digest)[: 2 + REQUEST_DIGITS]


def _step(owed: Owed) -> str:
    return owed.step.replace("_", " ") if owed.step else "-"
