"""What editors and type checkers know of the clients: the same methods and options, and all of the API's options."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from declai.api.http.schemas import ChatRequest
from declai.client.aio import AsyncClient
from declai.client.options import ChatOptions
from declai.client.sync import Client

# Of the API's fields: what the clients fill in themselves, ...
OWN = {"messages", "model", "tier", "n", "stream", "stream_options", "return_token_ids"}
# ... and what the API takes from OpenAI's clients and does nothing with, or under a second name.
FOREIGN = {
    *("max_completion_tokens", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_retention", "parallel_tool_calls", "reasoning_effort", "verbosity"),
}
ASYNC_ONLY = {"exchange"}  # a request of the caller's own form, for programs that relay
USE = """
from declai import AsyncClient, Client

client = Client(api_key="key")
text: str = client.chat("What is a list?", max_tokens=4, temperature=0, stop=["."], tier="realtime").text
for delta in client.stream([{"role": "user", "content": "Hello"}], seed=1, response_format={"type": "json_object"}):
    text += delta.text


async def ask(client: AsyncClient) -> int:
    return (await client.estimate("What is a list?", max_tokens=4)).max_cost_units
"""
MISUSE = """
from declai import Client

client = Client(api_key="key")
client.chat("What is a list?", max_tokens="four")
client.chat("What is a list?", max_token=4)
client.stream("What is a list?", tier="free")
Client(wallets="mine")
"""


def public(client: type) -> dict[str, inspect.Signature]:
    methods = {name: method for name, method in vars(client).items() if inspect.isfunction(method)}
    return {name: inspect.signature(m) for name, m in methods.items() if name == "__init__" or name[0] != "_"}


def returned(client: type, name: str) -> str:
    """A method's result as text, without what makes it an asynchronous one."""
    return str(get_type_hints(getattr(client, name))["return"]).replace("AsyncIterator", "Iterator")


def test_both_clients_have_the_same_methods_arguments_and_results() -> None:
    blocking, asynchronous = public(Client), public(AsyncClient)
    assert asynchronous.keys() - blocking.keys() == ASYNC_ONLY
    assert not blocking.keys() - asynchronous.keys()
    for name, signature in blocking.items():
        assert signature.parameters == asynchronous[name].parameters
        assert returned(Client, name) == returned(AsyncClient, name)


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_no_argument_is_without_a_type(client: type) -> None:
    for name, signature in public(client).items():
        untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
        assert not untyped, name
        assert not [p.name for p in signature.parameters.values() if p.annotation == "Any"], name


def test_the_clients_options_are_the_apis() -> None:
    assert set(ChatOptions.__annotations__) == ChatRequest.model_fields.keys() - OWN - FOREIGN


def test_a_type_checker_sees_the_package_and_its_options(tmp_path: Path) -> None:
    """With the strictness that a careful user has; `py.typed` is what lets it look."""
    for name, text in (("use.py", USE), ("misuse.py", MISUSE)):
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "use.py", "misuse.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    wrong = [line.split(":")[:2] for line in done.stdout.splitlines() if ": error:" in line]
    assert wrong == [["misuse.py", str(number)] for number in (5, 6, 7, 8)], done.stdout
