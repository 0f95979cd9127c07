"""The SDK's client: everything a requester does, against one gateway. `declai.client.sync` is the same, blocking.

What comes over the network is parsed by pydantic's parser: it bounds nesting, the standard library's crashes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Unpack

import httpx
from eth_account.signers.local import LocalAccount
from pydantic_core import from_json

from declai.chain.client import Chain, Deployment
from declai.chain.keystore import read_password
from declai.chain.pricing import Tier as ServiceTier
from declai.client.book import SessionBook
from declai.client.concluding import Concluding
from declai.client.evidence import Evidence
from declai.client.models import TokenizerCache
from declai.client.options import ChatOptions
from declai.client.payer import Payer
from declai.client.session import OutgoingRequest, SessionWallet
from declai.client.types import Answer, Balance, Delta, Estimate, Model, Session, Tier
from declai.errors import ApiError
from declai.home import home
from declai.network import Network, load
from declai.wallets import find_keystore, unlock

TIMEOUT_S = 120.0


def chain_of(network: Network) -> Chain:
    """The chain of a network file."""
    deployment = Deployment.model_validate(
        {"chain_id": network.chain.chain_id, "contracts": network.contracts, "block": network.chain.block}
    )
    return Chain(network.chain.rpc_url, deployment)


class AsyncClient:
    """A requester's client.

    With `api_key` it is a plain OpenAI-style client. Without one it signs every request with a session of `wallet`,
    checks the receipts of each answer, and acknowledges only what it has checked.

    Args:
        network: a network file's content or path; the default is `$DECLAI_NETWORK`, else the local devnet.
        wallet: name or path of the wallet whose sessions are used.
        password_file: of the wallet; the network file may name one.
        session: id of the session to use; the default is the newest open one.
    """

    def __init__(
        self,
        network: Network | Path | None = None,
        *,
        wallet: str = "requester",
        password_file: Path | None = None,
        api_key: str | None = None,
        session: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.network = network if isinstance(network, Network) else load(network)
        self.chain = chain_of(self.network)
        self._wallet_name = wallet
        self._password_file = password_file
        self._api_key = api_key
        self._session_id = session
        self._session_wallet: SessionWallet | None = None
        self._signing = asyncio.Lock()
        self._book = SessionBook(home() / "sessions.db")
        tokenizers = TokenizerCache(self.chain, self.network.gateway.url)
        self._concluding = Concluding(self.chain, tokenizers, self.receipts)
        self._http = httpx.AsyncClient(base_url=self.network.gateway.url, timeout=timeout_s)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    # What anyone may ask

    async def models(self) -> list[Model]:
        """The models that can be asked for."""
        answer = await self._get("/v1/models")
        return [Model.model_validate(item) for item in answer["data"]]

    async def estimate(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        model: str | None = None,
        *,
        tier: Tier = "research",
        **options: Unpack[ChatOptions],
    ) -> Estimate:
        """What a conversation's next answer may cost at most."""
        return await self._estimate(await self._body(messages, model, {**options, "tier": tier}))

    async def receipts(self, request: str) -> dict[str, Any]:
        """A request's receipts as the gateway tells them."""
        found: dict[str, Any] = await self._get(f"/v1/receipts/{request}")
        return found

    async def network_info(self) -> dict[str, Any]:
        """What the gateway says of itself."""
        found: dict[str, Any] = await self._get("/v1/network")
        return found

    # Asking

    async def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        model: str | None = None,
        *,
        tier: Tier = "research",
        **options: Unpack[ChatOptions],
    ) -> Answer:
        """One whole answer to a conversation, or to a single message of a user.

        Args:
            messages: the API's messages (`{"role": "user", "content": "Hello"}`), or the text of one.
            model: the model's name; the default is the network's.
            tier: how the request is served, and what it costs.

        Raises:
            ApiError: the gateway refused or failed.
            ReceiptError: the receipts do not check; nothing was acknowledged.
        """
        evidence = Evidence()
        async for _ in self._stream(messages, model, {**options, "tier": tier}, evidence):
            pass
        if evidence.usage is None or evidence.request is None:
            raise ApiError("the answer ended without its usage")
        return Answer(
            text=evidence.text,
            finish_reason=evidence.finish_reason or "",
            usage=evidence.usage,
            request=evidence.request,
            model=evidence.model or "",
            logprobs=tuple(evidence.logprobs),
        )

    async def stream(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        model: str | None = None,
        *,
        tier: Tier = "research",
        **options: Unpack[ChatOptions],
    ) -> AsyncIterator[Delta]:
        """An answer piece by piece; the last delta carries finish reason, usage and the request's hash.

        Arguments and errors are those of `chat`.
        """
        async with aclosing(self._stream(messages, model, {**options, "tier": tier}, Evidence())) as deltas:
            async for delta in deltas:
                yield delta

    async def _stream(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        model: str | None,
        options: Mapping[str, Any],
        seen: Evidence,
    ) -> AsyncGenerator[Delta]:
        """`stream`, with the evidence that it gathers."""
        if options.get("n") not in (None, 1):
            raise ApiError("an answer has one choice here: ask several times at once", status=400, param="n")
        body = await self._body(messages, model, options)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        num_shown = 0
        async with self.exchange("/v1/chat/completions", body, seen) as events:
            async for payload in events:
                text = seen.see(payload)
                if text:
                    yield Delta(text=text, logprobs=tuple(seen.logprobs[num_shown:]))
                    num_shown = len(seen.logprobs)
        yield Delta(
            text="",
            finish_reason=seen.finish_reason,
            usage=seen.usage,
            request=seen.request,
            logprobs=tuple(seen.logprobs[num_shown:]),
        )

    @asynccontextmanager
    async def exchange(
        self, path: str, body: dict[str, Any], evidence: Evidence
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Send one request, signed when there is a session, and iterate over what comes back.

        When the block ends the receipts are checked and the request is acknowledged, or voided when it was refused.
        """
        signed: OutgoingRequest | None = None
        headers = {}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        else:
            body = body | {"return_token_ids": True}
            signed = await self._sign(body)
            headers["Authorization"] = signed.header
        refused = False
        try:
            async with self._http.stream("POST", path, json=body, headers=headers) as response:
                if response.status_code != 200:
                    refused = True
                    await response.aread()
                    raise _api_error(response.status_code, response.text)
                evidence.request = response.headers.get("x-declai-request")
                yield _payloads(response)
        except httpx.HTTPError as error:
            raise ApiError(f"the gateway at {self.network.gateway.url} does not answer: {error!r}") from error
        finally:
            if signed is not None:
                wallet = self._open_wallet()
                await asyncio.shield(self._concluding.conclude(wallet, signed, body, evidence, refused))

    # Money

    async def balance(self) -> Balance:
        """The wallet's money, from the chain."""
        return await asyncio.to_thread(self._balance)

    async def open_session(self, budget: int, duration_s: int = 30 * 86_400) -> Session:
        """Lock `budget` base units for requests to this gateway, signed with a fresh key that only they can spend."""
        info = await self.network_info()
        return await asyncio.to_thread(self._open_session, budget, duration_s, info["gateway"]["address"])

    async def sessions(self) -> list[Session]:
        """This machine's sessions of the wallet on this network, newest first."""
        return await asyncio.to_thread(self._sessions)

    # Inner workings

    async def _body(
        self, messages: str | Sequence[Mapping[str, Any]], model: str | None, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if model is None:
            model = self.network.model.name if self.network.model else (await self.models())[0].id
        given = {name: value for name, value in options.items() if value is not None}
        return {"model": model, "messages": [dict(message) for message in messages]} | given

    async def _get(self, path: str) -> Any:
        try:
            response = await self._http.get(path)
        except httpx.HTTPError as error:
            raise ApiError(f"the gateway at {self.network.gateway.url} does not answer: {error!r}") from error
        if response.status_code != 200:
            raise _api_error(response.status_code, response.text)
        return from_json(response.content)

    async def _estimate(self, body: dict[str, Any]) -> Estimate:
        response = await self._http.post("/v1/estimate", json=body)
        if response.status_code != 200:
            raise _api_error(response.status_code, response.text)
        return Estimate.model_validate_json(response.content)

    async def _sign(self, body: dict[str, Any]) -> OutgoingRequest:
        # One at a time: a nonce that is taken and not yet signed for looks like one that an earlier run left open.
        async with self._signing:
            wallet = await asyncio.to_thread(self._open_wallet)
            await self._concluding.reconcile(wallet)
            estimate = await self._estimate(body)
            tier = ServiceTier[str(body.get("tier", "research")).upper()]
            signed = await asyncio.to_thread(
                lambda: wallet.sign(body, max_tokens=estimate.max_tokens, max_cost=estimate.max_cost_units, tier=tier)
            )
            self._concluding.expect(signed)
            return signed

    def _open_wallet(self) -> SessionWallet:
        if self._session_wallet is None:
            self._session_wallet = self._payer().open_wallet(self._session_id)
        return self._session_wallet

    def _payer(self) -> Payer:
        path, known_file = find_keystore(self._wallet_name, self.network)
        file = self._password_file or known_file
        return Payer(
            self.chain,
            self._book,
            gateway_url=self.network.gateway.url,
            keystore=path,
            password=lambda: read_password(file) if file else None,
            unlock=lambda: self._unlock(),
        )

    def _unlock(self) -> LocalAccount:
        return unlock(self._wallet_name, self.network, self._password_file)

    def _balance(self) -> Balance:
        address = self._payer().address
        locked = sum(session.budget_units - session.spent_units for session in self._sessions() if not session.closed)
        return Balance(
            address=address,
            wallet_units=self.chain.token.balance_of(address),
            ledger_units=self.chain.ledger.balance_of(address),
            sessions_units=locked,
        )

    def _open_session(self, budget: int, duration_s: int, gateway: str) -> Session:
        record = self._payer().open_session(budget, duration_s, gateway)
        self._session_id, self._session_wallet = record.id, None
        return Session(id=record.id, gateway=record.gateway, budget_units=budget, spent_units=0, closed=False)

    def _sessions(self) -> list[Session]:
        return [
            Session(
                id=record.id,
                gateway=record.gateway,
                budget_units=record.budget,
                spent_units=record.spent,
                closed=record.closed,
            )
            for record in self._payer().records()
        ]


def _api_error(status: int, text: str) -> ApiError:
    try:
        error = from_json(text)["error"]
        return ApiError(
            error["message"], status=status, type=error["type"], param=error.get("param"), code=error.get("code")
        )
    except (ValueError, KeyError, TypeError):
        return ApiError(f"HTTP {status}: {text[:200]}", status=status)


async def _payloads(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON of a whole answer, or of each event of a stream. Raises ApiError for an error in mid-stream."""
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        yield from_json(await response.aread())
        return
    async for line in response.aiter_lines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        payload = from_json(line[6:])
        if "error" in payload:
            error = payload["error"]
            raise ApiError(error["message"], type=error.get("type", "server_error"), code=error.get("code"))
        yield payload
