"""The compiled contracts that Python uses: data of this package, so that nobody needs a compiler to speak to them.

`python -m declai.chain.compile` writes them anew, from a checkout.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

FOLDER = Path(__file__).with_name("compiled")
# What is deployed. Their ABIs hold the errors of all libraries and interfaces that they use.
CONTRACTS = ("CreditToken", "NodeRegistry", "ModelRegistry", "InferenceLedger", "DisputeCourt", "Jury", "Examiner")


class Artifact(BaseModel):
    """One compiled contract. Bytecodes are 0x-hex; `source` is the path from the repository's root.

    `immutables` are the places (start, length), in bytes, of the deployed code that the constructor fills in.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    source: str
    abi: list[dict[str, Any]]
    bytecode: str
    deployed_bytecode: str
    immutables: list[tuple[int, int]]

    def as_json(self) -> str:
        """The text of its file."""
        return self.model_dump_json(indent=1) + "\n"


@functools.cache
def artifact(name: str) -> Artifact:
    """The contract of this name, one of CONTRACTS; read once a process. The caller must not change it."""
    return Artifact.model_validate_json((FOLDER / f"{name}.json").read_text())
