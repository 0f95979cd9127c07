"""Peers that serve blocks over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from declai.ipfs.exchange import raw_block_response
from declai.ipfs.store import BlockStore


class Peer:
    """A real HTTP server over a store, which counts what it is asked and can lie."""

    def __init__(self, store: BlockStore) -> None:
        self.store = store
        self.asked: list[str] = []
        self.answer: tuple[int, bytes] | None = None
        self.after: int | None = None

    def respond(self, cid: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(cid)
        if self.answer is not None and (self.after is None or len(self.asked) > self.after):
            return self.answer[0], {}, self.answer[1]
        return raw_block_response(self.store, cid)


@contextmanager
def serve(peer: Peer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = peer.respond(self.path.partition("?")[0].removeprefix("/ipfs/"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
