"""The embedded block store: one file a block, every read verified, safe for several processes at once.

A block is written to a temporary file, synced and renamed, so that it is there whole or not at all. Pins are empty
files named by CID: what is to be kept. An `add` writes its blocks first and its pin last.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from declai.ipfs.cid import RAW, Cid
from declai.ipfs.errors import CorruptBlock, InvalidBlock, IpfsError, MissingBlock
from declai.ipfs.unixfs import CHUNK_BYTES, MAX_BLOCK_BYTES, MAX_DEPTH, build, decode

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Stat:
    """A DAG in numbers. `dag_bytes` counts each block once for every link to it."""

    cid: str
    file_bytes: int
    dag_bytes: int
    num_blocks: int


@dataclass
class Verification:
    """What a walk over a DAG found."""

    num_blocks: int = 0
    missing: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.missing and not self.corrupt


class BlockStore:
    """Blocks in a folder. CIDs in the public methods are texts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks, self._pins, self._new = folder / "blocks", folder / "pins", folder / "new"
        for path in (self._blocks, self._pins, self._new):
            path.mkdir(parents=True, exist_ok=True)

    # Blocks

    def _path(self, cid: Cid) -> Path:
        text = str(cid)
        return self._blocks / text[-3:-1] / text

    def has(self, cid: str) -> bool:
        return self._path(Cid.parse(cid)).exists()

    def put_block(self, cid: Cid, block: bytes) -> None:
        """Keep a block, durably. Raises CorruptBlock when it is not the block of its CID."""
        if len(block) > MAX_BLOCK_BYTES:
            raise InvalidBlock(f"a block of {len(block)} bytes is over the limit of {MAX_BLOCK_BYTES}")
        if Cid.of(cid.codec, block) != cid:
            raise CorruptBlock(f"the bytes given for {cid} do not hash to it")
        path = self._path(cid)
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == block:
                return
        path.parent.mkdir(exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._new)
        with os.fdopen(descriptor, "wb") as file:
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)

    def get_block(self, cid: Cid) -> bytes:
        """A block's bytes. Raises MissingBlock, or CorruptBlock when the disk gave back something else."""
        try:
            block = self._path(cid).read_bytes()
        except FileNotFoundError:
            raise MissingBlock(f"block {cid} is not in {self.folder}") from None
        if Cid.of(cid.codec, block) != cid:
            raise CorruptBlock(f"block {cid} in {self.folder} is damaged: delete {self._path(cid)} and fetch it again")
        return block

    # Files

    def add(self, source: Path | bytes | BinaryIO, progress: Progress | None = None, *, pin: bool = True) -> str:
        """Add a file in one pass and constant memory; returns its CID. `progress` gets the bytes of each chunk."""
        with contextlib.ExitStack() as stack:
            if isinstance(source, Path):
                stream: BinaryIO = stack.enter_context(source.open("rb"))
            else:
                stream = io.BytesIO(source) if isinstance(source, bytes) else source
            root = build(_chunks(stream, progress), self.put_block)
        if pin:
            self.pin(str(root.cid))
        return str(root.cid)

    def read(self, cid: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes of a file, chunk by chunk, every block verified."""
        end = None if length is None else offset + length
        return self._read(Cid.parse(cid), None, 0, offset, end, 0)

    def _read(
        self, cid: Cid, size: int | None, start: int, offset: int, end: int | None, depth: int
    ) -> Iterator[bytes]:
        """`start` is where this part of the file begins; parts outside [offset, end) are never opened."""
        if depth > MAX_DEPTH:
            raise InvalidBlock(f"the DAG at {cid} is deeper than any file of ours")
        block = self.get_block(cid)
        if cid.codec == RAW:
            if size is not None and len(block) != size:
                raise InvalidBlock(f"block {cid} has {len(block)} bytes, its parent says {size}")
            piece = block[max(offset - start, 0) : None if end is None else max(end - start, 0)]
            if piece:
                yield piece
            return
        node = decode(block)
        if size is not None and node.file_bytes != size:
            raise InvalidBlock(f"node {cid} holds {node.file_bytes} bytes, its parent says {size}")
        for link in node.links:
            if start + link.file_bytes > offset and (end is None or start < end):
                yield from self._read(link.cid, link.file_bytes, start, offset, end, depth + 1)
            start += link.file_bytes

    def read_bytes(self, cid: str, max_bytes: int) -> bytes:
        """A whole small file. Raises IpfsError when it is larger than `max_bytes`."""
        size = self.file_size(cid)
        if size > max_bytes:
            raise IpfsError(f"{cid} has {size} bytes, at most {max_bytes} are expected here")
        return b"".join(self.read(cid))

    def file_size(self, cid: str) -> int:
        """Bytes of a file, from its root block alone."""
        parsed = Cid.parse(cid)
        block = self.get_block(parsed)
        return len(block) if parsed.codec == RAW else decode(block).file_bytes

    def stat(self, cid: str) -> Stat:
        """Sizes of a DAG that is wholly here."""
        blocks = [(found, self.get_block(found)) for found in self.walk(cid)]
        return Stat(cid, self.file_size(cid), sum(len(block) for _, block in blocks), len(blocks))

    def walk(self, cid: str) -> Iterator[Cid]:
        """Every block of a DAG, parents first, a block once for every link to it."""
        waiting = [(Cid.parse(cid), 0)]
        while waiting:
            current, depth = waiting.pop()
            if depth > MAX_DEPTH:
                raise InvalidBlock(f"the DAG at {cid} is deeper than any file of ours")
            yield current
            if current.codec != RAW:
                links = decode(self.get_block(current)).links
                waiting.extend((link.cid, depth + 1) for link in reversed(links))

    def verify(self, cid: str) -> Verification:
        """Hash every block of a DAG and say which are missing or damaged."""
        result, waiting = Verification(), [(Cid.parse(cid), 0)]
        while waiting:
            current, depth = waiting.pop()
            result.num_blocks += 1
            try:
                block = self.get_block(current)
                if current.codec != RAW and depth <= MAX_DEPTH:
                    waiting.extend((link.cid, depth + 1) for link in reversed(decode(block).links))
            except MissingBlock:
                result.missing.append(str(current))
            except (CorruptBlock, InvalidBlock):
                result.corrupt.append(str(current))
        return result

    # Pins

    def pin(self, cid: str) -> None:
        """Note that a DAG is to be kept. Pinning twice is pinning once."""
        (self._pins / str(Cid.parse(cid))).touch()

    def pins(self) -> list[str]:
        return sorted(path.name for path in self._pins.iterdir())


def _chunks(stream: BinaryIO, progress: Progress | None) -> Iterator[bytes]:
    while chunk := _read_exactly(stream, CHUNK_BYTES):
        yield chunk
        if progress:
            progress(len(chunk))


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes; fewer only at the end (a pipe gives what it has)."""
    parts: list[bytes] = []
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
