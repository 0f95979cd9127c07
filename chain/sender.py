"""Sends transactions so that none is lost, doubled or stuck.

`send` does all of it. Whoever must survive a crash goes step by step: `prepare` signs (store the raw bytes durably),
`broadcast` may be repeated at will, `confirm` waits for a depth and survives reorganisations, `bump` replaces a stuck
transaction by a dearer one with the same nonce, so that at most one of them is ever mined.

Threads and processes that share an account take turns by a lock file: the next nonce is read and used under it.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from web3.exceptions import TransactionNotFound, Web3RPCError
from web3.types import TxParams, TxReceipt

from declai.chain.client import Rpc
from declai.chain.contracts.binding import Call, typed_errors
from declai.chain.errors import ChainError, NonceTaken, TransactionFailed, TransactionUnconfirmed

GAS_MARGIN = 1.2
BUMP = 1.25  # nodes ask for at least 10 % more before they replace a transaction
MIN_TIP_WEI = 10**9
POLL_S = 0.05


@dataclass(frozen=True)
class SignedTransaction:
    """A transaction as it goes over the wire."""

    raw: bytes
    hash: bytes
    nonce: int


class TransactionSender:
    """Sends from one account. `depth` counts blocks: 1 is mined, 2 has another block on top."""

    def __init__(
        self,
        chain: Rpc,
        account: LocalAccount,
        *,
        depth: int = 1,
        timeout_s: float = 120,
        max_fee_wei: int = 500 * 10**9,
    ) -> None:
        self.chain = chain
        self.account = account
        self.depth = depth
        self.timeout_s = timeout_s
        self.max_fee_wei = max_fee_wei
        folder = Path(tempfile.gettempdir()) / f"declai-locks-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._lock_path = folder / f"{chain.chain_id}-{account.address}"

    def send(self, call: Call) -> TxReceipt:
        """Sign, broadcast, and wait for the depth; replaces the transaction when it is stuck.

        Raises:
            ContractRevert: the contract refuses the call; nothing was sent.
            TransactionFailed: it was mined and reverted.
            TransactionUnconfirmed: not at its depth after `timeout_s`, even with a higher fee.
        """
        with self.exclusive():
            transactions = [self.prepare(call)]
            self.broadcast(transactions[0])
        try:
            return self.confirm(transactions, timeout_s=self.timeout_s / 2)
        except TransactionUnconfirmed:
            transactions.append(self.bump(transactions[0].raw))
            self.broadcast(transactions[1])
            return self.confirm(transactions, timeout_s=self.timeout_s / 2)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the account's lock: from reading the next nonce until the transaction is broadcast."""
        with self._lock_path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def prepare(self, call: Call) -> SignedTransaction:
        """Estimate, price and sign a call with the account's next nonce. Nothing is sent.

        Raises:
            ContractRevert: the contract would refuse.
        """
        w3 = self.chain.w3
        with typed_errors():
            base_fee = int(w3.eth.get_block("latest").get("baseFeePerGas", 0))
            tip = max(int(w3.eth.max_priority_fee), MIN_TIP_WEI)
            params: TxParams = {
                "type": 2,
                "chainId": self.chain.chain_id,
                "from": self.account.address,
                "data": HexBytes(call.data),
                "value": w3.to_wei(0, "wei"),
            }
            if call.to is not None:
                params["to"] = call.to
            gas = w3.eth.estimate_gas(params)
            params["gas"] = int(gas * GAS_MARGIN)
            nonce = w3.eth.get_transaction_count(self.account.address, "pending")
        return self._sign(params, int(nonce), min(2 * base_fee + tip, self.max_fee_wei), min(tip, self.max_fee_wei))

    def bump(self, raw: bytes) -> SignedTransaction:
        """The same transaction, same nonce, with fees that make nodes take it in the old one's place.

        Raises:
            ChainError: that would cost more than `max_fee_wei`.
        """
        old: Any = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        fee, tip = int(old["maxFeePerGas"] * BUMP), int(old["maxPriorityFeePerGas"] * BUMP)
        if fee > self.max_fee_wei:
            raise ChainError(f"a fee above {self.max_fee_wei} wei a gas would be needed: raise max_fee_wei or wait")
        params: Any = {name: old[name] for name in ("type", "chainId", "data", "value", "gas", "to") if old.get(name)}
        return self._sign(params, int(old["nonce"]), fee, tip)

    @staticmethod
    def hash_of(raw: bytes) -> bytes:
        """The hash of a signed transaction."""
        return keccak(raw)

    def _sign(self, params: TxParams, nonce: int, max_fee: int, tip: int) -> SignedTransaction:
        fields: Any = {**params, "nonce": nonce, "maxFeePerGas": max_fee, "maxPriorityFeePerGas": tip}
        signed = self.account.sign_transaction({k: v for k, v in fields.items() if k != "from"})
        raw = bytes(signed.raw_transaction)
        return SignedTransaction(raw, keccak(raw), nonce)

    def broadcast(self, transaction: SignedTransaction | bytes) -> None:
        """Give a transaction, or its stored raw bytes, to the node. Repeating it is harmless.

        Raises:
            NonceTaken: another transaction of this account was mined with its nonce.
        """
        raw = transaction if isinstance(transaction, bytes) else transaction.raw
        try:
            with typed_errors():
                self.chain.w3.eth.send_raw_transaction(HexBytes(raw))
        except Web3RPCError as error:
            text = str(error).lower()
            if "already known" in text or "already imported" in text or self._is_known(keccak(raw)):
                return
            if "nonce" in text and "low" in text:
                raise NonceTaken(f"the nonce of {keccak(raw).hex()} was used by another transaction") from error
            if "insufficient funds" in text:
                raise ChainError(f"{self.account.address} has too little ETH for gas: send it some") from error
            raise ChainError(f"the node refused a transaction: {error}") from error

    def _is_known(self, transaction_hash: bytes) -> bool:
        try:
            self.chain.w3.eth.get_transaction(HexBytes(transaction_hash))
        except TransactionNotFound:
            return False
        return True

    def confirm(
        self,
        transactions: Sequence[SignedTransaction | bytes],
        *,
        depth: int | None = None,
        timeout_s: float | None = None,
    ) -> TxReceipt:
        """Wait until one of `transactions` (all of one nonce; hashes will do) stands at the depth.

        Raises:
            TransactionFailed: it reverted.
            TransactionUnconfirmed: the time is up.
        """
        hashes = [t if isinstance(t, bytes) else t.hash for t in transactions]
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            receipt = self.mined(hashes, self.depth if depth is None else depth)
            if receipt is not None:
                if receipt["status"] != 1:
                    raise TransactionFailed(f"transaction 0x{receipt['transactionHash'].hex()} reverted")
                return receipt
            if time.monotonic() > deadline:
                known = ", ".join("0x" + transaction_hash.hex() for transaction_hash in hashes)
                raise TransactionUnconfirmed(f"not confirmed in time: {known}")
            time.sleep(POLL_S)

    def mined(self, hashes: Sequence[bytes], depth: int) -> TxReceipt | None:
        """The receipt of one of these transactions if it stands at `depth` now; a reorganisation can undo it."""
        for transaction_hash in hashes:
            try:
                with typed_errors():
                    receipt = self.chain.w3.eth.get_transaction_receipt(HexBytes(transaction_hash))
            except TransactionNotFound:
                continue
            if self.chain.block_number() - int(receipt["blockNumber"]) + 1 >= depth:
                return receipt
        return None
