"""How a payer's requests end in the book, against gateways that answer as they like; the chain is not asked."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from declai.chain.keystore import SCRYPT_LIGHT, encrypt
from declai.chain.messages import new_account
from declai.client.aio import AsyncClient
from declai.client.book import BookedState, SessionBook, SessionRecord
from declai.errors import ApiError, ReceiptError
from declai.network import ChainInfo, GatewayInfo, Network

CHAIN_ID = 31337
SESSION, OLD = "0x" + "aa" * 32, "0x" + "01" * 32
CONTRACTS = ("CreditToken", "NodeRegistry", "ModelRegistry", "InferenceLedger", "DisputeCourt")
ADDRESSES = {name: "0x" + f"{number + 1:02x}" * 20 for number, name in enumerate(CONTRACTS)}
ESTIMATE = {"model": "m", "num_prompt_tokens": 1, "max_tokens": 8, "max_cost": 100, "max_cost_credits": "0"}
REFUSED = {"error": {"message": "no node has the model", "type": "server_error"}}
Answer = Callable[[str], tuple[int, Any]]


@contextmanager
def gateway(answer: Answer) -> Iterator[str]:
    """A stub that answers each path as the test says; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, body = answer(self.path)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SessionBook:
    """The book of a payer with one session, in the home folder."""
    monkeypatch.setenv("DECLAI_HOME", str(tmp_path))
    (tmp_path / "password").touch(mode=0o600)
    (tmp_path / "password").write_text("a long password\n")
    payer = new_account()
    keystore = encrypt(payer, "a long password", SCRYPT_LIGHT)
    (tmp_path / "payer.json").write_text(keystore)
    book = SessionBook(tmp_path / "sessions.db")
    book.add_session(
        SessionRecord(
            id=SESSION,
            chain_id=CHAIN_ID,
            ledger=ADDRESSES["InferenceLedger"],
            gateway="0x" + "77" * 20,
            gateway_url="",
            payer=payer.address,
            keystore=encrypt(new_account(), "a long password", SCRYPT_LIGHT),
            budget=10**6,
            opened_at=time.time(),
        )
    )
    return book


def sent(book: SessionBook, request: str = OLD) -> int:
    """A request of an earlier run whose end is not in the book."""
    nonce = book.issue(SESSION, 100, int(time.time()) + 600).nonce
    book.name(SESSION, nonce, request)
    return nonce


def state(folder: Path, nonce: int) -> str:
    with closing(sqlite3.connect(folder / "sessions.db")) as db:
        found: str = db.execute("SELECT state FROM requests WHERE nonce = ?", (nonce,)).fetchone()[0]
    return found


def ask(url: str, folder: Path) -> None:
    async def run() -> None:
        network = Network(
            chain=ChainInfo(rpc_url="http://127.0.0.1:9", chain_id=CHAIN_ID),
            contracts=ADDRESSES,
            gateway=GatewayInfo(url=url),
        )
        wallet = str(folder / "payer.json")
        async with AsyncClient(network, wallet=wallet, password_file=folder / "password") as client:
            await client.chat("hello", "some/model")

    asyncio.run(run())


def answers(receipts: Any) -> Answer:
    """Any request's receipts are these; every new request is refused."""

    def answer(path: str) -> tuple[int, Any]:
        if path.startswith("/v1/receipts/"):
            return 200, receipts
        return (200, ESTIMATE) if path == "/v1/estimate" else (503, REFUSED)

    return answer


def bundle() -> dict[str, Any]:
    """Receipts of OLD, in their form."""
    message = {"session": SESSION, "nonce": 0, "model": OLD, "body": OLD, "max_tokens": 8, "tier": 0}
    message |= {"max_cost": 100, "acked_below": 0, "spent": 0, "deadline": 1}
    return {"request": OLD, "state": "failed", "message": message, "cost": 0, "fee": 0}


def test_receipts_that_do_not_check_dispute_an_old_request_once_and_stop_no_new_one(
    book: SessionBook, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = sent(book)
    with gateway(answers({"request": "nonsense"})) as url:
        for _ in range(2):
            with pytest.raises(ApiError, match="no node has the model"):
                ask(url, tmp_path)
    assert state(tmp_path, old) == BookedState.DISPUTED
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len([text for text in warnings if OLD in text]) == 1


def test_a_chain_that_is_away_leaves_an_old_request_open_and_stops_no_new_one(
    book: SessionBook, tmp_path: Path
) -> None:
    old = sent(book)
    with gateway(answers(bundle())) as url, pytest.raises(ApiError, match="no node has the model"):
        ask(url, tmp_path)
    assert state(tmp_path, old) == BookedState.SENT


def test_receipts_of_another_request_are_disputed(book: SessionBook, tmp_path: Path) -> None:
    old = sent(book, "0x" + "02" * 32)
    with gateway(answers(bundle())) as url, pytest.raises(ApiError, match="no node has the model"):
        ask(url, tmp_path)
    assert state(tmp_path, old) == BookedState.DISPUTED


def test_a_new_request_whose_receipts_have_no_form_is_disputed(book: SessionBook, tmp_path: Path) -> None:
    def answer(path: str) -> tuple[int, Any]:
        return (200, {"choices": []}) if path == "/v1/chat/completions" else answers({})(path)

    with gateway(answer) as url, pytest.raises(ReceiptError, match="not in their form"):
        ask(url, tmp_path)
    assert state(tmp_path, 0) == BookedState.DISPUTED
