"""Series of measured rounds as figures: lowest, median and highest, so that a noisy machine shows; and as a table."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from _network import Timing

Row = dict[str, Any]


class Rounds:
    """Rounds of one way to serve some requests: each request's times, seconds from its arrival to each token."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rounds: list[list[Timing]] = []
        self.processor_s: list[float] = []

    @property
    def tokens_per_s(self) -> list[float]:
        """Of all requests together, from the first one's arrival to the last token; requests that all come at once."""
        return [sum(t.num_tokens for t in timings) / max(t.last_token_s for t in timings) for timings in self.rounds]

    @property
    def decode_tokens_per_s(self) -> list[float]:
        """The sum of the requests' own speeds after their first token."""
        return [sum(timing.decode_tokens_per_s for timing in timings) for timings in self.rounds]

    @property
    def tokens_per_processor_s(self) -> list[float]:
        """What others do on the machine hardly shows in these."""
        num_tokens = [sum(timing.num_tokens for timing in timings) for timings in self.rounds]
        return [count / seconds for count, seconds in zip(num_tokens, self.processor_s, strict=True)]

    def row(self) -> Row:
        """Latencies are of all rounds' requests."""
        return {"tokens/s": spread(self.tokens_per_s), **latencies(t for timings in self.rounds for t in timings)}


def latencies(timings: Iterable[Timing]) -> Row:
    found = list(timings)
    first_ms = [1000 * timing.first_token_s for timing in found]
    between_ms = [1000 * gap for timing in found for gap in timing.between_tokens_s]
    return {
        "first token ms": {"p50": percentile(first_ms, 50), "p99": percentile(first_ms, 99)},
        "between tokens ms": {"p50": percentile(between_ms, 50), "p99": percentile(between_ms, 99)},
    }


def spread(values: Sequence[float], digits: int = 1) -> Row:
    return {
        "min": round(min(values), digits),
        "median": round(statistics.median(values), digits),
        "max": round(max(values), digits),
    }


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Row:
    """Of each round's pair: what else the machine did in a round slowed both down."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)], 3)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` of them do not exceed."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 1)


def alternate(num_rounds: int, runs: Sequence[Callable[[], None]]) -> None:
    """Every run once per round, each round in the other order than the one before: who goes first has no advantage."""
    for number in range(num_rounds):
        for run in runs if number % 2 == 0 else reversed(runs):
            run()


class OtherLoad:
    """The share of this machine's processor time that others took."""

    def __init__(self) -> None:
        self._began, self._busy_s, self._own_s = time.monotonic(), _busy_s(), _own_s()

    def share(self) -> float:
        """Since the start, 0 to 1. Child processes count as ours once they have ended."""
        others_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return round(max(0.0, others_s) / (time.monotonic() - self._began) / (os.cpu_count() or 1), 2)


def _busy_s() -> float:
    values = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(values) - values[3] - values[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and waiting for disks


def _own_s() -> float:
    return sum(os.times()[:4])


def print_table(rows: dict[str, Row]) -> None:
    """One line per row; columns are the rows' keys, nested ones joined as "1.0 / 2.0 / 3.0"."""
    columns: list[str] = list(dict.fromkeys(name for row in rows.values() for name in row))
    names = {name: next(_heading(name, row[name]) for row in rows.values() if name in row) for name in columns}
    lines = [["", *names.values()]]
    lines += [[label, *(_cell(row.get(name, "")) for name in columns)] for label, row in rows.items()]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip())


def _heading(name: str, value: Any) -> str:
    return f"{name} ({'/'.join(value)})" if isinstance(value, dict) else name


def _cell(value: Any) -> str:
    return " / ".join(str(part) for part in value.values()) if isinstance(value, dict) else str(value)
