"""A development chain with the contracts and people on it, where each transaction is mined at a chosen time."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import requests
from eth_abi.abi import decode, encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.abi import function_abi_to_4byte_selector, get_abi_input_types, get_abi_output_types
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from declai.chain.artifacts import artifact
from declai.chain.client import Chain, ContractName, Rpc
from declai.chain.contracts.binding import Call, decode_revert
from declai.chain.deploy import deploy
from declai.chain.index import EventIndex
from declai.chain.parameters import Parameters
from declai.devnet.chain_setup import fund

GAS = hex(5_000_000)
MINING_TIMEOUT_S = 20
PEOPLE = (
    *("treasury", "payer", "friend", "thief"),
    *("gateway", "worker", "rival"),
    *("gateway's signer", "worker's signer", "rival's signer", "new signer", "newer signer"),
    *("session key", "other session key"),
)


class View(NamedTuple):
    """A function of a contract, with arguments."""

    contract: ContractName
    function: str
    arguments: tuple[Any, ...] = ()

    @property
    def data(self) -> bytes:
        """What `eth_call` takes."""
        return _encode(self)

    def decode(self, raw: bytes) -> tuple[Any, ...]:
        return _decode(self.contract, self.function, raw)

    def __str__(self) -> str:
        return f"{self.contract}.{self.function}{self.arguments}"


@functools.lru_cache(10_000)
def _encode(view: View) -> bytes:
    selector, inputs, _ = _shape(view.contract, view.function)
    return selector + encode(inputs, view.arguments)


@functools.lru_cache(10_000)
def _decode(contract: str, function: str, raw: bytes) -> tuple[Any, ...]:
    return decode(_shape(contract, function)[2], raw)


@functools.cache
def _shape(contract: str, function: str) -> tuple[bytes, list[str], list[str]]:
    """Selector, types of the arguments, types of what is returned."""
    abi = next(e for e in artifact(contract).abi if e["type"] == "function" and e["name"] == function)
    return function_abi_to_4byte_selector(abi), list(get_abi_input_types(abi)), list(get_abi_output_types(abi))


class Bench:
    """Contracts on a fresh chain; all people have ETH, and the node signs for them."""

    def __init__(self, rpc_url: str, folder: Path) -> None:
        self.accounts: dict[str, LocalAccount] = {name: Account.from_key(keccak(text=name)) for name in PEOPLE}
        self.keys = {str(account.address): account for account in self.accounts.values()}
        self.names = {str(account.address): name for name, account in self.accounts.items()}
        self._http, self._url, self._ids = requests.Session(), rpc_url, itertools.count()
        self._http.trust_env = False  # no proxies: looking for them costs more than a call
        fund(Rpc(rpc_url), list(self.keys))
        self.rpc("anvil_autoImpersonateAccount", True)
        treasury = self.accounts["treasury"]
        self.parameters = Parameters(treasury=treasury.address)
        self._deployment = deploy(rpc_url, treasury, self.parameters)
        self.chain = Chain(rpc_url, self._deployment)
        self.index = EventIndex(folder / "index.db", Chain(rpc_url, self._deployment))
        self._snapshot = ""

    def close(self) -> None:
        self.index.close()
        self._http.close()

    def address(self, name: str) -> str:
        return str(self.accounts[name].address)

    def genesis(self) -> int:
        """When the ledger was made: its epochs are counted from then."""
        ledger, w3 = self.chain.ledger.address, self.chain.w3
        blocks = itertools.count(self._deployment.block)
        return self.chain.timestamp(next(block for block in blocks if w3.eth.get_code(ledger, block)))

    def save(self) -> None:
        """What `restore` leads back to."""
        self._snapshot = self.rpc("evm_snapshot")

    def restore(self) -> None:
        """Undo all since `save`. Numbers of sessions come again, so bindings begin anew; the index has to notice."""
        assert self.rpc("evm_revert", self._snapshot)
        self.save()
        self.chain = Chain(self._url, self._deployment)

    def call(self, contract: ContractName, function: str, *arguments: Any) -> Call:
        """A call for which the bindings have no method."""
        to = to_checksum_address(self._deployment.contracts[contract])
        return Call(to, View(contract, function, arguments).data, f"{contract}.{function}")

    def attempt(self, sender: str, call: Call, at: int) -> str | None:
        """Mine a transaction in a block of this time, whether it succeeds or not; the custom error if it does not."""
        transaction = {"from": sender, "to": call.to, "data": "0x" + call.data.hex(), "gas": GAS}
        self.rpc("evm_setNextBlockTimestamp", at)
        if self._mined(self.rpc("eth_sendTransaction", transaction)):
            return None
        # It changed nothing, so the same call on top of its block, at the same time, tells why.
        error = self._post([("eth_call", [transaction, "latest"])])[0]["error"]
        revert = decode_revert(bytes(HexBytes(error.get("data", "0x"))))
        return revert.name if revert else str(error)

    def _mined(self, transaction_hash: str) -> bool:
        """Whether a transaction succeeded, once it is mined, which is at once but not before it has a hash."""
        deadline = time.monotonic() + MINING_TIMEOUT_S
        while (receipt := self.rpc("eth_getTransactionReceipt", transaction_hash)) is None:
            assert time.monotonic() < deadline, f"{transaction_hash} is not mined"
        return int(receipt["status"], 16) == 1

    def read(self, views: Sequence[View]) -> list[bytes]:
        """What views return now, all in one round trip."""
        at = self._deployment.contracts
        requests = [{"to": at[view.contract], "data": "0x" + view.data.hex()} for view in views]
        answers = self._post([("eth_call", [request, "latest"]) for request in requests])
        for view, answer in zip(views, answers, strict=True):
            assert "result" in answer, f"{view}: {answer}"
        return [bytes.fromhex(answer["result"][2:]) for answer in answers]

    def rpc(self, method: str, *arguments: Any) -> Any:
        answer = self._post([(method, list(arguments))])[0]
        assert "result" in answer, f"{method}: {answer}"
        return answer["result"]

    def _post(self, calls: Sequence[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
        body = [{"jsonrpc": "2.0", "id": next(self._ids), "method": m, "params": p} for m, p in calls]
        answers = {answer["id"]: answer for answer in self._http.post(self._url, json=body, timeout=20).json()}
        return [answers[item["id"]] for item in body]
