"""Files as DAGs, exactly as the profile `unixfs-v1-2025` (IPIP-499) lays them out.

Chunks of 1 MiB are raw blocks; up to 1024 links make a dag-pb node; levels are added until one node is left. A file of
one chunk, and an empty one, is that raw block alone. Encodings: dag-pb (links before data) and UnixFS's `Data` message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from declai.ipfs.cid import DAG_PB, RAW, Cid
from declai.ipfs.errors import InvalidBlock, InvalidCid

CHUNK_BYTES = 2**20
MAX_LINKS = 1024
MAX_BLOCK_BYTES = 2 * 2**20
MAX_DEPTH = 8
_FILE = 2


@dataclass(frozen=True)
class Link:
    """A child: its CID, the bytes of its whole DAG, and the bytes of the file under it."""

    cid: Cid
    dag_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class DagNode:
    """An inner node of a file."""

    links: tuple[Link, ...]

    @property
    def file_bytes(self) -> int:
        return sum(link.file_bytes for link in self.links)


def build(chunks: Iterable[bytes], put: Callable[[Cid, bytes], None], max_links: int = MAX_LINKS) -> Link:
    """Lay out a file's chunks, giving every block to `put`, children first. Keeps one link a chunk in memory."""
    level: list[Link] = []
    for chunk in chunks:
        cid = Cid.of(RAW, chunk)
        put(cid, chunk)
        level.append(Link(cid, len(chunk), len(chunk)))
    if not level:
        empty = Cid.of(RAW, b"")
        put(empty, b"")
        return Link(empty, 0, 0)
    while len(level) > 1:
        level = [_put_node(level[i : i + max_links], put) for i in range(0, len(level), max_links)]
    return level[0]


def _put_node(links: list[Link], put: Callable[[Cid, bytes], None]) -> Link:
    node = DagNode(tuple(links))
    block = encode(node)
    cid = Cid.of(DAG_PB, block)
    put(cid, block)
    return Link(cid, len(block) + sum(link.dag_bytes for link in links), node.file_bytes)


def encode(node: DagNode) -> bytes:
    """The dag-pb block of a node."""
    data = _varint_field(1, _FILE) + _varint_field(3, node.file_bytes)
    data += b"".join(_varint_field(4, link.file_bytes) for link in node.links)
    links = b"".join(
        _bytes_field(2, _bytes_field(1, bytes(link.cid)) + _bytes_field(2, b"") + _varint_field(3, link.dag_bytes))
        for link in node.links
    )
    return links + _bytes_field(1, data)


def decode(block: bytes) -> DagNode:
    """The node in a dag-pb block.

    Raises:
        InvalidBlock: not an inner node of a file, or not encoded as `encode` does.
    """
    if len(block) > MAX_BLOCK_BYTES:
        raise InvalidBlock(f"a block of {len(block)} bytes is over the limit of {MAX_BLOCK_BYTES}")
    raw_links: list[tuple[Cid, int]] = []
    sizes: list[int] = []
    total: int | None = None
    for number, value in _fields(block):
        if number == 2 and isinstance(value, bytes):
            link = dict(_fields(value))
            cid, dag_bytes = link.get(1), link.get(3)
            if not isinstance(cid, bytes) or not isinstance(dag_bytes, int):
                raise InvalidBlock("a link without hash or size")
            try:
                raw_links.append((Cid.from_bytes(cid), dag_bytes))
            except InvalidCid as error:
                raise InvalidBlock(str(error)) from None
        elif number == 1 and isinstance(value, bytes):
            for field, item in _fields(value):
                if field == 4 and isinstance(item, int):
                    sizes.append(item)
                elif field == 3 and isinstance(item, int):
                    total = item
                elif (field, item) != (1, _FILE):
                    raise InvalidBlock("not an inner node of a file")
    if not raw_links or len(raw_links) > MAX_LINKS or len(raw_links) != len(sizes) or total != sum(sizes):
        raise InvalidBlock("links and sizes of a node disagree")
    pairs = zip(raw_links, sizes, strict=True)
    node = DagNode(tuple(Link(cid, dag_bytes, size) for (cid, dag_bytes), size in pairs))
    if encode(node) != block:
        raise InvalidBlock("the node is not in canonical form")
    return node


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protobuf message with varints and bytes alone."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        value, at = _read_varint(data, at)
        if key & 7 == 2:
            if at + value > len(data):
                raise InvalidBlock("a field runs past the end of its block")
            yield key >> 3, data[at : at + value]
            at += value
        elif key & 7 == 0:
            yield key >> 3, value
        else:
            raise InvalidBlock(f"unexpected wire type {key & 7}")


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 63:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise InvalidBlock("an integer runs past the end of its block")
