"""CIDs equal those of an independent implementation, and files come back from the store as they went in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from declai.ipfs import store as store_module
from declai.ipfs.cid import DAG_PB, RAW, Cid
from declai.ipfs.errors import InvalidBlock, InvalidCid
from declai.ipfs.store import BlockStore
from declai.ipfs.unixfs import CHUNK_BYTES, DagNode, Link, build, decode, encode

ROOT = Path(__file__).resolve().parents[2]
SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 7, 50 * 10**6]


def content(size: int) -> bytes:
    """The bytes that importer.mjs makes: pages of 4096 equal bytes that follow a linear congruence."""
    out, state = bytearray(), 1
    while len(out) < size:
        state = (state * 1103515245 + 12345) % 2**32
        out += bytes([state >> 16 & 0xFF]) * 4096
    return bytes(out[:size])


def test_cids_equal_the_reference_implementation(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["node", str(Path(__file__).with_name("importer.mjs")), *map(str, SIZES)]
    printed = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert printed.returncode == 0, printed.stderr
    store = BlockStore(tmp_path)
    assert [store.add(content(size)) for size in SIZES] == printed.stdout.split()


@pytest.mark.parametrize("num_chunks", [1, 2, 3, 4, 9, 10, 27, 28])
def test_levels_are_added_until_one_node_is_left(num_chunks: int) -> None:
    blocks: dict[Cid, bytes] = {}
    chunks = [bytes([i]) * 5 for i in range(num_chunks)]
    root = build(chunks, blocks.__setitem__, max_links=3)
    assert root.file_bytes == 5 * num_chunks

    def leaves(cid: Cid) -> bytes:
        if cid.codec == RAW:
            return blocks[cid]
        return b"".join(leaves(link.cid) for link in decode(blocks[cid]).links)

    assert leaves(root.cid) == b"".join(chunks)


@given(data=st.binary(max_size=4000), offset=st.integers(0, 4100), length=st.none() | st.integers(0, 4100))
@settings(max_examples=60, deadline=None)
def test_any_part_of_a_file_reads_back(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, offset: int, length: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "CHUNK_BYTES", 64)
        store = BlockStore(tmp_path_factory.mktemp("store"))
        cid = store.add(data)
        end = None if length is None else offset + length
        assert b"".join(store.read(cid, offset, length)) == data[offset:end]
        assert b"".join(store.read(cid)) == data
        assert store.stat(cid).file_bytes == len(data)
        assert store.verify(cid).ok


@given(st.binary(max_size=300))
def test_hostile_nodes_raise_nothing_but_invalid_block(block: bytes) -> None:
    try:
        node = decode(block)
    except InvalidBlock:
        return
    assert encode(node) == block


def test_a_node_that_lies_about_its_size_is_refused() -> None:
    leaf = Link(Cid.of(RAW, b"abc"), 3, 3)
    honest = encode(DagNode((leaf, leaf)))
    assert decode(honest).file_bytes == 6
    with pytest.raises(InvalidBlock):
        decode(honest.replace(b"\x18\x06", b"\x18\x07"))


@given(st.text(max_size=80))
def test_texts_that_are_no_cid_raise_invalid_cid(text: str) -> None:
    with pytest.raises(InvalidCid):
        Cid.parse(text)


@given(st.sampled_from([RAW, DAG_PB]), st.binary(min_size=32, max_size=32))
def test_cids_round_trip(codec: int, digest: bytes) -> None:
    cid = Cid(codec, digest)
    assert Cid.parse(str(cid)) == cid == Cid.from_bytes(bytes(cid))
