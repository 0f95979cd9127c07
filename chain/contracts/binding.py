"""What all bindings share: reading a view, describing a write, and naming the error of a contract that refuses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_typing import ChecksumAddress
from eth_utils.abi import function_abi_to_4byte_selector
from hexbytes import HexBytes
from requests.exceptions import RequestException
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import ContractLogicError
from web3.types import LogReceipt

from declai.chain.artifacts import CONTRACTS, artifact
from declai.chain.errors import ChainUnreachable, ContractRevert, host_of

Row = TypeVar("Row")


@dataclass(frozen=True)
class Call:
    """A state change that `TransactionSender` can sign and send; without `to` it creates a contract."""

    to: ChecksumAddress | None
    data: bytes
    label: str


@dataclass(frozen=True)
class Event:
    """A decoded event of a contract and where it stands in the chain."""

    contract: str
    name: str
    values: dict[str, Any]
    block: int
    log_index: int


@functools.cache
def custom_errors() -> dict[bytes, tuple[str, list[tuple[str, str]]]]:
    """Selector -> (error name, [(argument, type)]) of every custom error of the compiled contracts."""
    found = {}
    for contract in CONTRACTS:
        for entry in artifact(contract).abi:
            if entry["type"] == "error":
                arguments = [(item["name"], item["type"]) for item in entry["inputs"]]
                found[function_abi_to_4byte_selector(entry)] = (entry["name"], arguments)  # type: ignore[arg-type]
    return found


def decode_revert(data: bytes) -> ContractRevert | None:
    """The custom error in a call's return data, if it is one of ours or OpenZeppelin's."""
    known = custom_errors().get(data[:4])
    if known is None:
        return None
    name, arguments = known
    try:
        values = decode([kind for _, kind in arguments], data[4:])
    except DecodingError:
        return ContractRevert(name, {})
    named = {argument: value for (argument, _), value in zip(arguments, values, strict=True)}
    return ContractRevert(name, {key: "0x" + v.hex() if isinstance(v, bytes) else v for key, v in named.items()})


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn web3's errors into this room's.

    Raises:
        ContractRevert: the contract refused.
        ChainUnreachable: nobody answers at the RPC URL.
    """
    try:
        yield
    except ContractLogicError as error:
        data = error.data if isinstance(error.data, str) else None
        revert = decode_revert(bytes(HexBytes(data))) if data else None
        raise revert or ContractRevert(str(error.message or error), {}) from error
    except RequestException as error:
        # Its text and its cause hold the whole URL.
        where = host_of(str(error.request.url)) if error.request is not None else "the RPC URL"
        why = type(error).__name__ if error.response is None else f"HTTP {error.response.status_code}"
        raise ChainUnreachable(
            f"the chain at {where} does not answer ({why}): is the RPC URL right and the node up?"
        ) from None


class Binding:
    """A deployed contract. Subclasses add a method per function."""

    name: str

    def __init__(self, w3: Web3, address: str, first_block: int = 0) -> None:
        """`first_block`: the one the deployment began in."""
        self._first_block = first_block
        self.address = Web3.to_checksum_address(address)
        self._contract: Contract = w3.eth.contract(address=self.address, abi=artifact(self.name).abi)
        names = [entry["name"] for entry in artifact(self.name).abi if entry["type"] == "event"]
        self._events = {name: self._contract.events[name]() for name in names}

    def _read(self, function: str, *arguments: Any) -> Any:
        with typed_errors():
            return self._contract.get_function_by_name(function)(*arguments).call()

    def _read_row(self, row: Callable[..., Row], function: str, *arguments: Any) -> Row:
        return row(*self._read(function, *arguments))

    def _call(self, function: str, *arguments: Any) -> Call:
        data = self._contract.encode_abi(function, args=list(arguments))
        return Call(self.address, bytes(HexBytes(data)), f"{self.name}.{function}")

    def log(self, name: str, **arguments: object) -> list[Event]:
        """The events of a name whose indexed arguments have these values, in the chain's order."""
        with typed_errors():
            logs = self._events[name].get_logs(argument_filters=arguments, from_block=self._first_block)
        return [Event(self.name, name, dict(log["args"]), log["blockNumber"], log["logIndex"]) for log in logs]

    def decode(self, log: LogReceipt) -> Event | None:
        """The event in a log of this contract, or None when the ABI has none like it."""
        for name, event in self._events.items():
            if HexBytes(event.topic) == log["topics"][0]:
                values = dict(event.process_log(log)["args"])
                return Event(self.name, name, values, log["blockNumber"], log["logIndex"])
        return None
