"""The storage that docs/contracts.md describes is the storage that the compiler lays out."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import solcx

from declai.chain import compile as compiler
from tests.support.devnet import ROOT

CONTRACTS = ("InferenceLedger", "NodeRegistry", "ModelRegistry", "DisputeCourt", "Jury")
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| (.*) \|$", re.M)


def layouts() -> dict[str, Any]:
    """The compiler's storage layout of each contract; no code is generated for it."""
    profile = tomllib.loads((ROOT / "foundry.toml").read_text())["profile"]["default"]
    request = compiler.standard_json(profile, compiler.sources_of(ROOT, profile), ["storageLayout"])
    with compiler.node_on_path():
        result = solcx.compile_standard(request, solc_binary=ROOT / profile["solc"])
    return {
        name: contract["storageLayout"]
        for path, contracts in result["contracts"].items()
        for name, contract in contracts.items()
        if name in CONTRACTS and path == f"contracts/src/{name}.sol"
    }


def entry(types: dict[str, Any], name: str) -> Any:
    """What a variable holds for one key, or one place of an array."""
    while types[name]["encoding"] == "mapping":
        name = types[name]["value"]
    return types[types[name]["base"]] if types[name]["encoding"] == "dynamic_array" else types[name]


def test_every_variable_is_described_with_its_words_and_members() -> None:
    described = {
        (c, v): (int(words), text) for c, v, words, text in ROW.findall((ROOT / "docs/contracts.md").read_text())
    }
    found = {}
    for contract, layout in layouts().items():
        for variable in layout["storage"]:
            if "Fallback" not in variable["label"]:  # OpenZeppelin's, for EIP-712 names of more than 31 bytes: empty
                found[contract, variable["label"]] = entry(layout["types"], variable["type"])
    assert described.keys() == found.keys()
    for key, kind in found.items():
        words, text = described[key]
        assert words == -(-int(kind["numberOfBytes"]) // 32), key
        members = [member["label"] for member in kind.get("members", [])]
        places = [text.find(f"`{member}`") for member in members]
        assert -1 not in places, (key, members)
        assert places == sorted(places), key
