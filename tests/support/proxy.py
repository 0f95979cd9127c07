"""A TCP proxy on loopback that delays, limits, holds up or cuts what goes through it: a bad line, for tests.

As a program of its own it waits for nobody: `python -m tests.support.proxy SECONDS HOST:PORT ...` prints one endpoint
for each target and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from types import TracebackType

PIECE_BYTES = 16 * 1024
# What may be on its way in one direction of one connection; then the sender is read no further.
MAX_PIECES = 256
Line = asyncio.Queue[tuple[float, bytes]]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class TcpProxy:
    """Forwards connections to `target` ("tcp://host:port") from a thread of its own, until it is closed.

    `delay_s` is added each way; `bytes_per_s` limits each direction of each connection.
    """

    def __init__(self, target: str, *, delay_s: float = 0.0, bytes_per_s: float | None = None) -> None:
        self._host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._port = int(port)
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)
        self.endpoint = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def hold(self) -> None:
        """Forward nothing until `go_on`; connections stay."""
        self._call(self._flows.clear)

    def go_on(self) -> None:
        self._call(self._flows.set)

    def cut(self) -> None:
        """Break all connections; what is on its way is lost. New ones are taken."""
        self._call(self._abort)

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            self._flows.set()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                self._abort()  # once more: a connection may have come up since
                await asyncio.wait(others, timeout=0.1)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> TcpProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, action: Callable[[], object]) -> None:
        async def act() -> None:
            action()

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(5)

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
        for connection in self._connections:
            connection.cancel()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port, limit=PIECE_BYTES)
        except BaseException as error:
            writer.transport.abort()
            if not isinstance(error, OSError):
                raise
            return
        await self._forward((reader, writer), (far_reader, far_writer))

    async def _forward(self, here: Ends, there: Ends) -> None:
        """Each direction ends by itself, after what was sent; a connection that breaks breaks the other one."""
        writers = {here[1], there[1]}
        self._writers |= writers
        try:
            async with asyncio.TaskGroup() as pumps:
                for reader, writer in ((here[0], there[1]), (there[0], here[1])):
                    line: Line = asyncio.Queue(MAX_PIECES)
                    pumps.create_task(self._take_in(reader, line))
                    pumps.create_task(self._put_out(line, writer))
            for writer in writers:
                writer.close()
                await writer.wait_closed()
        except* OSError:
            pass
        finally:
            for writer in writers:
                writer.transport.abort()
            self._writers -= writers

    async def _take_in(self, reader: asyncio.StreamReader, line: Line) -> None:
        """Pieces wait in a line until the time at which they come out at the other end; nothing is the end."""
        free_at, data = 0.0, b"-"
        while data:
            data = await reader.read(PIECE_BYTES)
            free_at = max(free_at, self._loop.time())
            if self._bytes_per_s is not None:
                free_at += len(data) / self._bytes_per_s
            await line.put((free_at + self._delay_s, data))

    async def _put_out(self, line: Line, writer: asyncio.StreamWriter) -> None:
        data = b"-"
        while data:
            due_at, data = await line.get()
            await asyncio.sleep(max(0.0, due_at - self._loop.time()))
            await self._flows.wait()
            if data:
                writer.write(data)
                await writer.drain()
        writer.write_eof()


@contextmanager
def delaying_proxies(endpoints: Sequence[str], delay_s: float) -> Iterator[list[str]]:
    """Where to connect to instead, in the same order ("tcp://host:port" as given), in another process."""
    command = [sys.executable, "-m", "tests.support.proxy", str(delay_s), *endpoints]
    with Popen(command, cwd=Path(__file__).parents[2], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield [process.stdout.readline().strip() for _ in endpoints]
        finally:
            process.kill()


if __name__ == "__main__":
    for target in sys.argv[2:]:
        print(TcpProxy(target, delay_s=float(sys.argv[1])).endpoint, flush=True)
    sys.stdin.read()  # until the parent is gone
