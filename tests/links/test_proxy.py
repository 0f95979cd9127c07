"""The tests' own bad line is honest: it loses nothing of what an end sent before it closed in order."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from tests.support.proxy import TcpProxy

TIMEOUT_S = 20


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serves one connection in a thread; its endpoint."""

    def accept() -> None:
        with listening.accept()[0] as end:
            end.settimeout(TIMEOUT_S)
            serve(end)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(TIMEOUT_S)
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def connect(line: TcpProxy) -> socket.socket:
    host, _, port = line.endpoint.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def read_all(end: socket.socket) -> bytes:
    parts = []
    while part := end.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("delay_s", [0.0, 0.2])
def test_who_closes_one_direction_still_gets_the_answer(delay_s: float) -> None:
    asked = bytes(range(256)) * 4096

    def echo(end: socket.socket) -> None:
        end.sendall(read_all(end)[::-1])

    with server(echo) as endpoint, TcpProxy(endpoint, delay_s=delay_s) as line, closing(connect(line)) as end:
        end.sendall(asked)
        end.shutdown(socket.SHUT_WR)
        assert read_all(end) == asked[::-1]


def test_what_was_sent_before_an_end_closed_arrives() -> None:
    sent = bytes(range(256)) * 4096

    def talk(end: socket.socket) -> None:
        end.sendall(sent)

    with server(talk) as endpoint, TcpProxy(endpoint, delay_s=0.2) as line, closing(connect(line)) as end:
        assert read_all(end) == sent


def test_what_is_on_its_way_is_lost_when_the_line_is_cut() -> None:
    heard: list[bytes] = []
    connected = threading.Event()

    def listen(end: socket.socket) -> None:
        connected.set()
        try:
            heard.append(end.recv(1))
        except ConnectionError:
            heard.append(b"")

    with server(listen) as endpoint, TcpProxy(endpoint) as line, closing(connect(line)) as end:
        assert connected.wait(TIMEOUT_S)
        line.hold()
        end.sendall(b"x")
        line.cut()
        line.go_on()
    assert heard == [b""]
