"""Every name that programs of others may rely on, as `docs/stability.md` promises it.

`python -m tests.docs.surface` adds the names of this checkout to `released.json`, to be called for a release.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

import click

from declai import AsyncClient, Client, cli
from declai.api.app import create_app
from declai.api.errors import GatewayError
from declai.api.metrics import Metrics
from declai.api.settings import GatewaySettings
from declai.protocol.problems import ProblemKind
from declai.worker.node.settings import NodeSettings
from tests.docs.documents import ROOT

RELEASED = ROOT / "tests" / "docs" / "released.json"
Names = dict[str, dict[str, list[str]]]


def surface() -> Names:
    """By kind and name, the names that belong to it: an endpoint's parameters, a method's, a command's options."""
    return {
        "http": dict(endpoints()),
        "error_codes": {code: [] for code in error_codes()},
        "receipt_problems": {kind.value: [] for kind in ProblemKind},
        "python": dict(methods()),
        "commands": {" ".join(path): options(command) for path, command in commands(cli.root)},
        "settings": {"node": [*NodeSettings.model_fields], "gateway": [*GatewaySettings.model_fields]},
        "metrics": {name: [] for name in (*gateway_metrics(), *node_metrics())},
    }


def endpoints() -> Iterator[tuple[str, list[str]]]:
    description = create_app(GatewaySettings()).openapi()
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            names = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            schema = description["components"]["schemas"].get(body.get("$ref", "").rpartition("/")[2], body)
            yield f"{method.upper()} {any_name(path)}", names + list(schema.get("properties", {}))


def any_name(path: str) -> str:
    """A path without what its own parts are called: `/v1/models/{}`."""
    return re.sub(r"{\w+}", "{}", path)


def error_codes() -> list[str]:
    importlib.import_module("declai.api.http.errors")  # defines errors of its own
    return sorted({error.code for error in below(GatewayError) if error.code})


def below(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    """A class's subclasses and theirs."""
    for found in kind.__subclasses__():
        yield found
        yield from below(found)


def methods() -> Iterator[tuple[str, list[str]]]:
    for client in (Client, AsyncClient):
        yield client.__name__, list(parameters(client))
        for name, method in inspect.getmembers(client, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{client.__name__}.{name}", [part for part in parameters(method) if part != "self"]


def parameters(function: Callable[..., Any]) -> Iterator[str]:
    """Names of parameters; those of `**options: Unpack[SomeTypedDict]` one by one."""
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            yield parameter.name
        elif spread := get_args(parameter.annotation):
            yield from inspect.get_annotations(spread[0])


def commands(group: click.Group, *prefix: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group, with its path."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, *prefix, name)
        elif found is not None:
            yield (*prefix, name), found


def options(command: click.Command) -> list[str]:
    return [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]


def gateway_metrics() -> list[str]:
    return [metric.name for metric in Metrics().registry.collect()]


def node_metrics() -> list[str]:
    """From the source: the collector of a node needs a node."""
    source = (ROOT / "worker" / "node" / "metrics.py").read_text()
    return re.findall(r'"((?:declai_|vllm:)\w+)"', source)


def released() -> Names:
    """What `released.json` says."""
    names: Names = json.loads(RELEASED.read_text()) if RELEASED.exists() else {}
    return names


def main() -> None:
    """Add today's names to those that were released."""
    names = released()
    for kind, today in surface().items():
        known = names.setdefault(kind, {})
        for name, parts in today.items():
            known[name] = sorted({*known.get(name, []), *parts})
        names[kind] = dict(sorted(known.items()))
    RELEASED.write_text(json.dumps(names, indent=1) + "\n")


if __name__ == "__main__":
    main()
