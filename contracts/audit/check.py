"""Slither over the contracts: each finding needs a reason in findings.toml, each reason there a finding. `make audit`.

Runs in Slither's own environment. Slither reads syntax trees, so the contracts are compiled without the optimizer: that
takes seconds. What it finds in packages is theirs to answer.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from crytic_compile import CryticCompile
from crytic_compile.platform.solc_standard_json import SolcStandardJson
from slither import Slither
from slither.detectors import all_detectors
from slither.detectors.abstract_detector import AbstractDetector

ROOT = Path(__file__).resolve().parents[2]
REASONS = Path(__file__).with_name("findings.toml")

Finding = tuple[str, str]  # detector, and the place as Contract.function.variable


def standard_json(profile: dict[str, Any]) -> dict[str, Any]:
    """The compiler's input: our sources; it reads itself what they import."""
    sources = sorted((ROOT / profile["src"]).rglob("*.sol"))
    return {
        "language": "Solidity",
        "sources": {path.relative_to(ROOT).as_posix(): {"content": path.read_text()} for path in sources},
        "settings": {"remappings": profile["remappings"], "evmVersion": profile["evm_version"]},
    }


def analyze(left_out: set[str]) -> list[dict[str, Any]]:
    """What all detectors but those left out say of our own sources."""
    profile = tomllib.loads((ROOT / "foundry.toml").read_text())["profile"]["default"]
    source = SolcStandardJson(standard_json(profile))
    slither = Slither(CryticCompile(source, solc=profile["solc"], solc_disable_warnings=True))
    for _, detector in inspect.getmembers(all_detectors, inspect.isclass):
        if issubclass(detector, AbstractDetector) and detector.ARGUMENT not in left_out:
            slither.register_detector(detector)
    findings = [finding for of_detector in slither.run_detectors() for finding in of_detector]
    return [finding for finding in findings if source_of(finding["elements"][0]).startswith(profile["src"])]


def source_of(element: dict[str, Any]) -> str:
    """File of a contract, function, variable or statement, from the repository's root."""
    return str(element["source_mapping"]["filename_relative"])


def place_of(element: dict[str, Any]) -> str:
    """Name of a contract, function or variable, after those of all that it stands in."""
    parent = element.get("type_specific_fields", {}).get("parent")
    return f"{place_of(parent)}.{element['name']}" if parent else str(element["name"])


def unexplained(findings: list[dict[str, Any]], explained: Counter[Finding]) -> list[str]:
    """A text for each finding that has no reason; takes those that have one out of `explained`."""
    texts = []
    for finding in findings:
        detector, place = finding["check"], place_of(finding["elements"][0])
        if explained[detector, place] > 0:
            explained[detector, place] -= 1
        else:
            texts.append(f"no reason for {detector} at {place}:\n{finding['description']}")
    return texts


def main() -> None:
    """Prints each finding without a reason and each reason without a finding; exits 1 when there is one."""
    os.chdir(ROOT)
    logging.getLogger("ContractSolcParsing").setLevel(logging.CRITICAL)  # it says what it cannot read of packages
    reasons = tomllib.loads(REASONS.read_text())
    entries = [entry for entry in reasons["finding"] if entry["reason"]]
    explained = Counter((entry["detector"], place) for entry in entries for place in entry["places"])
    sometimes = {(entry["detector"], place) for entry in entries if "sometimes" in entry for place in entry["places"]}
    findings = analyze({detector for detector, reason in reasons["left_out"].items() if reason})
    problems = unexplained(findings, explained)
    problems += [f"not found: {' at '.join(left)}" for left in explained.elements() if left not in sometimes]
    if problems:
        sys.exit("\n".join([*problems, f"{len(problems)} findings and reasons in {REASONS} do not match"]))
    print(f"{len(findings)} findings of Slither, each with its reason")


if __name__ == "__main__":
    main()
