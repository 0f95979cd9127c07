"""Mutation tests of the money paths: which small mistakes would no Forge test notice? `make mutation`.

Killed mutants stay killed while the contracts are unchanged; an interrupted run goes on where it was, and the
survivors of an earlier one are tried again. Results are in build/mutation/results.json, the survivors that are right as
they are, each with its reason, in mutants.toml.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

from mutants import Finder, Mutant, with_switches
from rich.progress import track

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutation"
PROJECT = WORK / "project"
RESULTS = WORK / "results.json"
EQUIVALENT = Path(__file__).with_name("mutants.toml")
COMPILER = Path(__file__).with_name("cached_solc.py")
FORGE = next((ROOT / "node_modules" / "@foundry-rs").glob("forge-*/bin/forge"))  # npm installs the one for this machine
TIMEOUT_S = 600.0  # the first run compiles

# The most important first.
LEDGER = ["ledger/Settlement", "ledger/Sessions", "ledger/Balances", "ledger/DirectClaims"]
LIBRARIES = [
    "libraries/SumTree",
    "libraries/Claims",
    "libraries/Accounts",
    "libraries/ExactTransfer",
    "libraries/Signers",
]
COURT = ["court/PayoutChallenges", "court/Sentences", "court/Bonds", "court/Equivocation"]
FILES = [f"contracts/src/{name}.sol" for name in [*LEDGER, *LIBRARIES, *COURT, "registry/Reputation", "NodeRegistry"]]
# Of the registry only what moves stake.
STAKE = re.compile(
    r"NodeRegistry\.(only\w+|register|setRoles|addStake|beginUnstake|cancelUnstake|withdraw|slash|jail|recordLoss"
    r"|minimumStake|isActive|activeOperator|lockedStake|_addStake|_thaw|_stakeOf)"
)

# A mutant that survives the tests of its subject meets all unit tests, then the invariants.
SUBJECTS = {
    "ledger": "ledger",
    "libraries": "{ledger,court}",
    "court": "court",
    "registry": "registry",
    "src": "registry",
}
UNIT_TESTS = ["--no-match-path", "contracts/test/invariant/*", "--no-match-contract", "GasTest"]
INVARIANTS = ["--match-path", "contracts/test/invariant/*"]
SETTINGS = {"FOUNDRY_FUZZ_RUNS": "16", "FOUNDRY_INVARIANT_RUNS": "10"}


def find() -> list[Mutant]:
    """All mutants of the money paths."""
    profile = tomllib.loads((ROOT / "foundry.toml").read_text())["profile"]["default"]
    names = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / profile["src"]).rglob("*.sol"))]
    task = {
        "language": "Solidity",
        "sources": {name: {"content": (ROOT / name).read_text()} for name in names},
        "settings": {
            "remappings": profile["remappings"],
            "evmVersion": profile["evm_version"],
            "outputSelection": {"*": {"": ["ast"]}},
        },
    }
    command = [str(ROOT / profile["solc"]), "--standard-json"]
    answer = subprocess.run(
        command, input=json.dumps(task), capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    trees = json.loads(answer)["sources"]
    found = [mutant for name in FILES for mutant in Finder(name, (ROOT / name).read_bytes()).find(trees[name]["ast"])]
    return [mutant for mutant in found if not mutant.file.endswith("/NodeRegistry.sol") or STAKE.match(mutant.place)]


def names_of(mutants: list[Mutant]) -> list[str]:
    """A name for each mutant, with a number where one function says the same twice."""
    seen: Counter[str] = Counter()
    names = []
    for mutant in mutants:
        seen[mutant.name] += 1
        names.append(mutant.name if seen[mutant.name] == 1 else f"{mutant.name} ({seen[mutant.name]})")
    return names


def write_project(numbered: list[tuple[int, Mutant]], left_out: Mutant | None = None) -> None:
    """A copy of the contracts and their tests with these mutants in it."""
    PROJECT.mkdir(parents=True, exist_ok=True)
    for name in ("src", "test"):
        for path in sorted((ROOT / "contracts" / name).rglob("*.sol")):
            relative = path.relative_to(ROOT).as_posix()
            source = path.read_bytes()
            if left_out is not None and relative == left_out.file:
                source = source[: left_out.start] + source[left_out.end :]
            elif left_out is None:
                source = with_switches(source, [item for item in numbered if item[1].file == relative])
            # What asks for the coinbase is not pure.
            _write(PROJECT / relative, re.sub(rb"\bpure\b", b"view", source))
    if not (PROJECT / "node_modules").is_symlink():
        (PROJECT / "node_modules").symlink_to(ROOT / "node_modules")
    settings = (ROOT / "foundry.toml").read_text()
    for name, value in {"deny": "never", "solc": str(COMPILER)}.items():
        settings = re.sub(rf"^{name} = .*", f'{name} = "{value}"', settings, flags=re.MULTILINE)
    # The old code generator for all: the profiles that keep the tests' contracts apart go.
    settings = re.sub(
        r"^(additional_compiler_profiles|compilation_restrictions) = .*\n", "", settings, flags=re.MULTILINE
    )
    _write(PROJECT / "foundry.toml", settings.replace("via_ir = true", "via_ir = false").encode())


def _write(path: Path, text: bytes) -> None:
    """Leaves a file alone that is as it should be, so that Forge compiles no more than it must."""
    if not path.exists() or path.read_bytes() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)


def killer(number: int, tests: list[str]) -> str:
    """The first of these tests that fails while this mutant is active; "" when all pass."""
    command = [str(FORGE), "test", "--offline", "--fail-fast", "-j", "1", "--block-coinbase", f"0x{number:040x}"]
    settings = {**os.environ, **SETTINGS}
    try:
        done = subprocess.run(
            [*command, *tests], cwd=PROJECT, env=settings, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return "timeout"
    if done.returncode == 0:
        return ""
    failure = re.search(r"\[FAIL[^\n]*\] (\w+)\(", done.stdout)
    if failure is None:
        sys.exit(f"Forge did not run the tests:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return failure[1]


def run(mutants: dict[str, Mutant], chosen: set[str], results: dict[str, str]) -> None:
    """Tries the chosen mutants that nobody killed yet; adds to the results who killed each, or "" for a survivor."""
    numbers = {name: number for number, name in enumerate(mutants, start=1) if mutants[name].kind != "modifier"}
    write_project([(number, mutants[name]) for name, number in numbers.items()])
    for title, tests in (("tests of the subject", None), ("all unit tests", UNIT_TESTS), ("invariants", INVARIANTS)):
        if failing := killer(0, tests or UNIT_TESTS):
            sys.exit(f"{failing} fails without a mutant")
        for name in track([name for name in numbers if name in chosen and not results.get(name)], title):
            _keep(results, name, killer(numbers[name], tests or near(mutants[name])))
    for name, mutant in mutants.items():
        if mutant.kind == "modifier" and name in chosen and not results.get(name):
            write_project([], left_out=mutant)
            _keep(results, name, killer(0, UNIT_TESTS) or killer(0, INVARIANTS))


def near(mutant: Mutant) -> list[str]:
    """The unit tests of the mutant's subject."""
    return ["--match-path", f"contracts/test/{SUBJECTS[Path(mutant.file).parent.name]}/*", *UNIT_TESTS[2:]]


def _keep(results: dict[str, str], name: str, killed_by: str) -> None:
    results[name] = killed_by
    RESULTS.write_text(json.dumps({"sources": sources_hash(), "killers": results}, indent=1))


def sources_hash() -> str:
    """Of all that a mutant's name rests on."""
    files = [*sorted((ROOT / "contracts" / "src").rglob("*.sol")), *sorted(Path(__file__).parent.glob("mut*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def report(mutants: dict[str, Mutant], results: dict[str, str]) -> int:
    """Prints the counts of each file and the survivors without a reason; how many those are."""
    entries = tomllib.loads(EQUIVALENT.read_text())["equivalent"] if EQUIVALENT.exists() else []
    reasons = {name for entry in entries if entry["reason"] for name in entry["mutants"]}
    print(f"{'':40} tried  killed  equivalent  survived")
    for file in FILES:
        tried = [name for name, mutant in mutants.items() if mutant.file == file and name in results]
        killed = [name for name in tried if results[name]]
        equivalent = [name for name in tried if not results[name] and name in reasons]
        survived = len(tried) - len(killed) - len(equivalent)
        print(f"{file:40} {len(tried):5}  {len(killed):6}  {len(equivalent):10}  {survived:8}")
    survivors = [name for name in mutants if results.get(name) == "" and name not in reasons]
    for name in survivors:
        print(f"survived: {name}")
    wrong = [name for name in reasons if results.get(name, "") != "" or name not in mutants]
    for name in wrong:
        print(f"in {EQUIVALENT.name}, but killed or gone: {name}")
    return len(survivors) + len(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a file's path or of a mutant's name")
    parser.add_argument("--sample", type=float, default=1.0, help="share of the mutants to try, by their names")
    parser.add_argument("--report", action="store_true", help="print what is known and try nothing")
    arguments = parser.parse_args()

    found = find()
    mutants = dict(zip(names_of(found), found, strict=True))
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = stored["killers"] if stored.get("sources") == sources_hash() else {}
    if not arguments.report:
        drawn = {name for name in mutants if random.Random(name).random() < arguments.sample or results.get(name) == ""}
        run(mutants, {name for name in drawn if arguments.only in mutants[name].file + name}, results)
    sys.exit(report(mutants, results) != 0)


if __name__ == "__main__":
    main()
