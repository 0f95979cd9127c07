"""Who may connect to a link: asked by ZeroMQ of each new connection, answered by the registry."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import zmq

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
Admit = Callable[[bytes], bool]


class ZapAnswers(threading.Thread):
    """Answers ZeroMQ's question (ZAP, RFC 27) whether a client's key may connect. Whatever goes wrong means no."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], admit: Admit) -> None:
        super().__init__(name="link-admission", daemon=True)
        self._admit = admit
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ZAP_ENDPOINT)
        self.num_refused = 0

    def run(self) -> None:
        with contextlib.suppress(zmq.ContextTerminated), self._socket:
            while True:
                request = self._socket.recv_multipart()
                self._socket.send_multipart(self._answer(request))

    def _answer(self, request: list[bytes]) -> list[bytes]:
        version, request_id, *_ = [*request, b"", b""]
        key = request[6] if len(request) == 7 and request[5] == b"CURVE" else b""
        try:
            admitted = len(key) == 32 and self._admit(key)
        except Exception:  # the registry may be out of reach; this thread must live on
            admitted = False
        if admitted:
            return [version, request_id, b"200", b"OK", key.hex().encode(), b""]
        self.num_refused += 1
        # 300 ("later") and not 400 ("never"): after a 400 the peer's socket gives up for good, registered or not.
        return [version, request_id, b"300", b"unknown link key", b"", b""]
