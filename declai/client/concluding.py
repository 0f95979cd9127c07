"""How requests end in the payer's book: their receipts are asked for and checked, then accepted or disputed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from declai.chain.client import Chain
from declai.chain.errors import ChainError
from declai.client.checks import check_receipts, check_tokens, parse_bundle
from declai.client.evidence import Evidence
from declai.client.models import TokenizerCache
from declai.client.session import OutgoingRequest, SessionWallet
from declai.errors import ApiError, ReceiptError

logger = logging.getLogger(__name__)
RECEIPT_TRIES = 20
# After a request's deadline a gateway that does not know it has this long to be wrong.
UNKNOWN_AFTER_S = 60


class Concluding:
    """Closes requests in the book; `receipts` asks the gateway for a request's receipts."""

    def __init__(self, chain: Chain, tokenizers: TokenizerCache, receipts: Callable[[str], Awaitable[Any]]) -> None:
        self._chain = chain
        self._tokenizers = tokenizers
        self._receipts = receipts
        self._served: set[str] = set()

    def expect(self, signed: OutgoingRequest) -> None:
        """`conclude` will be called for it, with what was seen of its answer: until then `reconcile` leaves it."""
        self._served.add(signed.request)

    async def conclude(
        self, wallet: SessionWallet, signed: OutgoingRequest, body: dict[str, Any], evidence: Evidence, refused: bool
    ) -> None:
        """Close a request whose answer ended. It stays open when the gateway tells no end: `reconcile` asks again.

        Raises:
            ReceiptError: its receipts do not check; it is disputed.
            ChainError, IpfsError: they cannot be checked now.
        """
        try:
            if refused:
                # Refused before it ran. Should the gateway claim it all the same, its cap is the most that can be lost.
                wallet.void(signed.nonce)
                return
            for attempt in range(RECEIPT_TRIES):
                with suppress(ApiError):
                    if await self._close(wallet, signed.nonce, signed.request, body, evidence):
                        return
                await asyncio.sleep(min(0.02 * 2**attempt, 1.0))
        finally:
            self._served.discard(signed.request)

    async def reconcile(self, wallet: SessionWallet) -> None:
        """Close what earlier requests left open. What is wrong with one of them is logged, and stops nothing."""
        for record in wallet.book.pending(wallet.record.id):
            if record.request is None:
                wallet.void(record.nonce)  # the nonce was taken, the request never signed
                continue
            if record.request in self._served:
                continue
            try:
                await self._close(wallet, record.nonce, record.request)
            except ApiError as error:
                if error.status == 404 and record.deadline + UNKNOWN_AFTER_S < time.time():
                    wallet.void(record.nonce)
            except ReceiptError as error:
                logger.warning("request %s is disputed, and never acknowledged: %s", record.request, error)
            except ChainError as error:
                logger.warning("request %s cannot be checked now: %s", record.request, error)

    async def _close(
        self,
        wallet: SessionWallet,
        nonce: int,
        request: str,
        body: dict[str, Any] | None = None,
        evidence: Evidence | None = None,
    ) -> bool:
        """Ask for a request's receipts, check them, and write its end into the book; False while it runs.

        Raises:
            ApiError: the gateway does not tell them.
            ReceiptError: they do not check; the request is disputed.
            ChainError, IpfsError: they cannot be checked now.
        """
        answer = await self._receipts(request)
        try:
            bundle = parse_bundle(answer)
            if bundle.request != bytes.fromhex(request.removeprefix("0x")):
                raise ReceiptError("the receipts are for another request")
            if bundle.state == "running":
                return False
            cost = await asyncio.to_thread(check_receipts, bundle, self._chain, wallet.record.gateway, evidence)
            if body is not None and evidence is not None and evidence.complete and bundle.state == "finished":
                tokenizer = await asyncio.to_thread(self._tokenizers.get, str(body["model"]))
                await asyncio.to_thread(check_tokens, evidence, body, tokenizer)
        except ReceiptError:
            wallet.dispute(nonce)
            raise
        wallet.accept(nonce, cost)
        return True
