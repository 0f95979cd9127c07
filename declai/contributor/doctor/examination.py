"""All checks, one after the other: none can end the others, by an error or by taking too long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from declai.contributor.doctor import broker, keys, ledger, links, machine, peers, resources
from declai.contributor.doctor.case import Case, Check
from declai.contributor.doctor.finding import Finding, Unknown, problem, warning
from declai.worker.node.settings import NodeSettings

CHECK_TIMEOUT_S = 30.0
# The chain before what is known from it; the gateway last.
GROUPS: dict[str, dict[str, Check]] = {
    "machine": machine.CHECKS,
    "keys": keys.CHECKS,
    "chain": ledger.CHECKS,
    "resources": resources.CHECKS,
    "links": links.CHECKS,
    "gateway": peers.CHECKS | broker.CHECKS,
}
WITHOUT_SETTINGS = ("machine",)


@dataclass(frozen=True)
class Examined:
    """A check by its names, which stay the same, and its finding."""

    group: str
    name: str
    finding: Finding


def examine(settings: NodeSettings | None, trouble: str = "", timeout_s: float = CHECK_TIMEOUT_S) -> Iterator[Examined]:
    """Findings as they come; without settings those about the machine alone. `timeout_s` bounds each check.

    `trouble` says what is wrong with the settings where there are none that could be used.
    """
    case = Case(settings, trouble)
    for group, checks in GROUPS.items():
        if settings is not None or group in WITHOUT_SETTINGS:
            for name, check in checks.items():
                yield Examined(group, name, bounded(check, case, timeout_s))


def bounded(check: Check, case: Case, timeout_s: float) -> Finding:
    """A check's finding; another one when it fails or takes too long (its thread is then left to itself)."""
    found = [problem(f"no answer within {timeout_s:g} s", "is the other side overloaded, or a firewall on the way?")]

    def run() -> None:
        try:
            found.append(check(case))
        except Unknown as reason:
            found.append(warning(f"cannot be told: {reason}", "mend that first"))
        except Exception as error:
            found.append(warning(f"the check failed: {type(error).__name__}: {error}", "please report this"))

    thread = threading.Thread(target=run, name="check", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return found[-1]
