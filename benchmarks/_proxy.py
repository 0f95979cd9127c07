"""A TCP proxy that lets every byte arrive later by a fixed time, both ways, and never holds bandwidth back.

Run as a program of its own, so that it waits for nobody: `python _proxy.py SECONDS HOST:PORT ...` prints one port per
target and ends with its standard input.
"""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

PIECE_BYTES = 2**16


@contextmanager
def delaying_proxies(endpoints: Sequence[str], delay_s: float) -> Iterator[list[str]]:
    """Where to connect to instead, in the same order ("tcp://host:port" as given); ended on leaving."""
    targets = [endpoint.removeprefix("tcp://") for endpoint in endpoints]
    command = [sys.executable, str(Path(__file__).resolve()), str(delay_s), *targets]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield [f"tcp://127.0.0.1:{int(process.stdout.readline())}" for _ in targets]
        finally:
            process.kill()


async def main(delay_s: float, targets: Sequence[str]) -> None:
    for target in targets:
        host, _, port = target.rpartition(":")

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str = host, port: str = port
        ) -> None:
            their_reader, their_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(forward(reader, their_writer, delay_s), forward(their_reader, writer, delay_s))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until the parent is gone


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Each piece is written `delay_s` after it was read, however many are on their way; an empty one is the end."""
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def write() -> None:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if not piece:
                break
            writer.write(piece)
        writer.close()

    writing = asyncio.create_task(write())
    try:
        while piece := await reader.read(PIECE_BYTES):
            pieces.put_nowait((loop.time() + delay_s, piece))
    except ConnectionError:
        pass  # as an end of the stream
    pieces.put_nowait((loop.time() + delay_s, b""))
    await writing


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), sys.argv[2:]))
